//! The providers' side of a swarm world: processes that dial, speak, work and die.

use cereus_core::ids::ConnId;
use cereus_core::time::{Span, Tick};

use super::super::office::Hands;
use super::{Happening, OWNER, REDIAL_AFTER, World};
use crate::machine::StepDue;

impl World {
    pub(super) fn dial(&mut self, now: Tick, machine: u32, life: u32) {
        let post = &mut self.posts[machine as usize];
        if post.life != life || post.socket.is_some() {
            return;
        }
        let Some(office) = &mut self.office else {
            let again = Happening::Dial { machine, life };
            return self.queue.push(now + REDIAL_AFTER, again);
        };
        let conn = self.net.open(machine);
        post.socket = Some(conn);
        let register = post.provider.register();
        let mut deeds = Vec::new();
        let mut hands = Hands {
            money: &mut self.money,
            deeds: &mut deeds,
            steps: 0,
        };
        office.accept(now, conn, OWNER, &mut hands);
        for deed in deeds {
            self.carry_out(now, deed).expect("a wake breaks no law");
        }
        let at = self.net.up(now, conn);
        self.queue.push(
            at,
            Happening::Up {
                conn,
                frame: register,
            },
        );
        self.queue.push(now, Happening::Beat { conn });
    }

    pub(super) fn beat(&mut self, now: Tick, conn: ConnId) {
        let machine = self.net.socket(conn).machine;
        let post = &mut self.posts[machine as usize];
        if post.socket != Some(conn) {
            return;
        }
        let frame = post.provider.beat();
        let stale = post.provider.stale_beat();
        let at = self.net.up(now, conn);
        self.queue.push(at, Happening::Up { conn, frame });
        if let Some(frame) = stale
            && self.stale_beats.chance(self.plan.stale_beats)
        {
            let at = self.net.up(now, conn);
            self.queue.push(at, Happening::Up { conn, frame });
        }
        self.queue
            .push(now + self.plan.heartbeat_every, Happening::Beat { conn });
    }

    pub(super) fn down(&mut self, now: Tick, conn: ConnId, frame: &[u8]) {
        let machine = self.net.socket(conn).machine;
        let post = &mut self.posts[machine as usize];
        if post.socket != Some(conn) {
            return;
        }
        self.tally.frames += 1;
        let people = &self.people;
        let truth = |number: u32| people[number as usize].ask.output_tokens_true;
        let due = post.provider.hear(now, frame, truth, &mut self.frames);
        self.send_frames(now, machine);
        self.step_due(machine, due);
    }

    pub(super) fn down_closed(&mut self, now: Tick, conn: ConnId) {
        let socket = self.net.socket(conn);
        socket.is_provider_open = false;
        let machine = socket.machine;
        let post = &mut self.posts[machine as usize];
        if post.socket != Some(conn) {
            return;
        }
        post.socket = None;
        post.provider.hang_up();
        let dial = Happening::Dial {
            machine,
            life: post.life,
        };
        self.queue.push(now + REDIAL_AFTER, dial);
    }

    pub(super) fn send_frames(&mut self, now: Tick, machine: u32) {
        let conn = self.posts[machine as usize].socket;
        for frame in core::mem::take(&mut self.frames) {
            if let Some(conn) = conn {
                let at = self.net.up(now, conn);
                self.queue.push(at, Happening::Up { conn, frame });
            }
        }
    }

    pub(super) fn step_due(&mut self, machine: u32, due: Option<StepDue>) {
        if let Some(StepDue { at, epoch }) = due {
            self.queue
                .push_ranked(at, machine, Happening::StepDone { machine, epoch });
        }
    }

    pub(super) fn crash(&mut self, now: Tick, machine: u32, down: Span, heard_after: Span) {
        let post = &mut self.posts[machine as usize];
        post.life += 1;
        post.provider.restart();
        let dial = Happening::Dial {
            machine,
            life: post.life,
        };
        let Some(conn) = post.socket.take() else {
            self.tally.skipped += 1;
            return self.queue.push(now + down, dial);
        };
        self.net.socket(conn).is_provider_open = false;
        self.queue.push(now + down, dial);
        let at = self.net.up(now + heard_after, conn);
        self.queue.push(at, Happening::UpClosed { conn });
    }
}
