//! The providers' side of a swarm world: processes that dial, speak, work and die.

use cereus_core::agent::{AgentEvent, SessionId};
use cereus_core::ids::ConnId;
use cereus_core::time::{Span, Tick};

use super::super::Plant;
use super::super::lies::is_of;
use super::super::provider::Act;
use super::{Happening, OWNER, Sleeper, World};
use crate::machine::StepDue;

impl World {
    /// Something happened to a provider's process; what it does about it happens to the world.
    pub(super) fn with_provider(
        &mut self,
        now: Tick,
        machine: u32,
        step: impl FnOnce(&mut super::Provider, &mut Vec<Act>),
    ) {
        let mut acts = core::mem::take(&mut self.acts);
        let post = &mut self.posts[machine as usize];
        step(&mut post.provider, &mut acts);
        for act in acts.drain(..) {
            self.act(now, machine, act);
        }
        self.acts = acts;
        if let Some(at) = self.posts[machine as usize].provider.next_wake() {
            self.arm(now, at, Sleeper::Agent(machine));
        }
    }

    fn act(&mut self, now: Tick, machine: u32, act: Act) {
        match act {
            Act::Dial { session } => self.dial(now, machine, session),
            Act::Drop { session } => {
                if let Some(conn) = self.conn_of(machine, session) {
                    self.posts[machine as usize].socket = None;
                    self.hang_up_coordinator(now, conn);
                }
            }
            Act::Ping { session } => {
                if let Some(conn) = self.conn_of(machine, session) {
                    let is_open = self.net.socket(conn).is_coordinator_open;
                    let there = self.net.up(now, conn).filter(|_| is_open);
                    let back = there.and_then(|there| self.net.down(there, conn));
                    let planted =
                        (self.trial.plant == Some(Plant::PongsFromNowhere)).then_some(now);
                    if let Some(at) = back.or(planted) {
                        self.queue.push(at, Happening::Pong { conn });
                    }
                }
            }
            Act::Send { session, frame } => self.send(now, machine, session, frame),
            Act::Step(StepDue { at, epoch }) => {
                let done = Happening::StepDone { machine, epoch };
                self.queue.push_ranked(at, machine, done);
            }
            Act::Stopped => self.crash(now, machine, Span::secs(2), Span::millis(1)),
        }
    }

    fn conn_of(&self, machine: u32, session: SessionId) -> Option<ConnId> {
        let (of, conn) = self.posts[machine as usize].socket?;
        (of == session).then_some(conn)
    }

    fn send(&mut self, now: Tick, machine: u32, session: SessionId, frame: Vec<u8>) {
        let Some(conn) = self.conn_of(machine, session) else {
            return;
        };
        // Old news hurts most when the machine has just become fuller.
        let is_news = is_of(&frame, "heartbeat") || is_of(&frame, "inference_accepted");
        let Some(at) = self.net.up(now, conn) else {
            return;
        };
        self.queue.push(at, Happening::Up { conn, frame });
        if is_news
            && self.stale_beats.chance(self.plan.stale_beats)
            && let Some(Act::Send { session: of, frame }) =
                self.posts[machine as usize].provider.stale_beat()
            && of == session
            && let Some(at) = self.net.up(now, conn)
        {
            self.queue.push(at, Happening::Up { conn, frame });
        }
    }

    fn dial(&mut self, now: Tick, machine: u32, session: SessionId) {
        let life = self.posts[machine as usize].life;
        let at = now + self.net.latency();
        let dialled = Happening::Dialled {
            machine,
            life,
            session,
        };
        self.queue.push(at, dialled);
    }

    /// The dial reached the coordinator's door, or found none.
    pub(super) fn dialled(&mut self, now: Tick, machine: u32, life: u32, session: SessionId) {
        if self.posts[machine as usize].life != life {
            return;
        }
        if let Some(at) = self.net.dial_fails(now, machine) {
            let failed = Happening::DialFailed {
                machine,
                life,
                session,
            };
            self.mark("a dial found nobody");
            self.queue.push(at, failed);
            return;
        }
        if self.coordinator.is_none() {
            let failed = AgentEvent::DialFailed { session };
            return self.with_provider(now, machine, |provider, acts| {
                provider.step(now, failed, acts);
            });
        }
        let conn = self.net.open(machine);
        self.posts[machine as usize].socket = Some((session, conn));
        let accepted = self.with_coordinator(now, |coordinator, by| {
            coordinator.accept(by.now, conn, OWNER, by);
            Ok(())
        });
        accepted.expect("a new socket breaks no law");
        self.with_provider(now, machine, |provider, acts| {
            provider.connected(now, session, acts);
        });
    }

    /// Nobody answered the dial.
    pub(super) fn dial_failed(&mut self, now: Tick, machine: u32, life: u32, session: SessionId) {
        if self.posts[machine as usize].life == life {
            let failed = AgentEvent::DialFailed { session };
            self.with_provider(now, machine, |provider, acts| {
                provider.step(now, failed, acts);
            });
        }
    }

    pub(super) fn down(&mut self, now: Tick, conn: ConnId, frame: &[u8]) {
        let machine = self.net.socket(conn).machine;
        if let Some(session) = self.session_of(machine, conn) {
            self.tally.frames += 1;
            self.with_provider(now, machine, |provider, acts| {
                provider.step(now, AgentEvent::FrameReceived { session, frame }, acts);
            });
        }
    }

    pub(super) fn pong(&mut self, now: Tick, conn: ConnId) {
        let machine = self.net.socket(conn).machine;
        if let Some(session) = self.session_of(machine, conn) {
            self.with_provider(now, machine, |provider, acts| {
                provider.step(now, AgentEvent::PongReceived { session }, acts);
            });
        }
    }

    /// The provider's end learns that the socket is gone.
    pub(super) fn down_closed(&mut self, now: Tick, conn: ConnId) {
        let machine = self.net.socket(conn).machine;
        if let Some(session) = self.session_of(machine, conn) {
            self.posts[machine as usize].socket = None;
            self.with_provider(now, machine, |provider, acts| {
                provider.step(now, AgentEvent::SocketClosed { session }, acts);
            });
        }
    }

    fn session_of(&self, machine: u32, conn: ConnId) -> Option<SessionId> {
        let (session, open) = self.posts[machine as usize].socket?;
        (open == conn).then_some(session)
    }

    /// The coordinator's end learns it later, or never.
    fn hang_up_coordinator(&mut self, now: Tick, conn: ConnId) {
        if let Some(at) = self.net.up(now, conn) {
            self.queue.push(at, Happening::UpClosed { conn });
        }
    }

    /// The process dies, with everything in it. Its socket does at the other end when it is heard.
    pub(super) fn crash(&mut self, now: Tick, machine: u32, down: Span, heard_after: Span) {
        let post = &mut self.posts[machine as usize];
        post.life += 1;
        let life = post.life;
        post.provider.restart(now + down, life);
        match post.socket.take() {
            Some((_, conn)) => self.hang_up_coordinator(now + heard_after, conn),
            None => self.tally.skipped += 1,
        }
        self.wakes.remove(&Sleeper::Agent(machine));
        self.arm(now, now + down, Sleeper::Agent(machine));
    }

    /// The process is asked to end, and another begins after it.
    pub(super) fn drain(&mut self, now: Tick, machine: u32) {
        self.with_provider(now, machine, |provider, acts| {
            provider.step(now, AgentEvent::DrainBegan, acts);
        });
    }
}
