//! What links and relays say, passed on.

use cereus_core::event::{AttemptFault, Event, Shown};
use cereus_core::ids::{ConnId, RequestId};
use cereus_core::link::{LinkEffect, LinkEvent, completed};
use cereus_core::relay::{RelayEffect, RelayEvent};
use cereus_core::time::Tick;
use cereus_core::wire::messages::SealedText;
use cereus_core::wire::{ChunkFrame, Text};

use super::super::Plant;
use super::{Deed, Hands, Office, Sleeper, Todo, Word};
use crate::oracle::{Origin, Violation};
use crate::stream::Ratio;

impl Office {
    pub(super) fn step_link(
        &mut self,
        now: Tick,
        conn: ConnId,
        event: LinkEvent<'_>,
        by: &mut Hands<'_>,
    ) -> Result<(), Violation> {
        let Some(link) = self.links.get_mut(&conn) else {
            return Ok(());
        };
        let mut out = core::mem::take(&mut self.link_out);
        out.clear();
        let chunk = link.step(now, event, &self.rules, &mut out);
        if let Some(machine) = link.machine() {
            self.machines.insert(conn, machine);
            let newest = self.newest.entry(machine).or_insert(conn);
            *newest = conn.max(*newest);
        }
        if let Some((at, _)) = link.next_wake() {
            by.deeds.push(Deed::Wake {
                at,
                who: Sleeper::Link(conn),
            });
        }
        for effect in out.list.drain(..) {
            self.follow_link(conn, effect, by);
        }
        self.link_out = out;
        let chunk = chunk.map_err(|misuse| Violation {
            law: "INV-16",
            what: format!("the link was misused: {misuse:?}"),
        })?;
        if let Some(chunk) = chunk
            && let Some(sent) = self.sent.get(&chunk.attempt).copied()
            && !self.is_dropped()
        {
            let frame = ChunkFrame {
                request_id: Text::from(chunk.wire.to_string()),
                encrypted_data: Some(SealedText {
                    ephemeral_public_key: Text::from(sent.sealer.as_str()),
                    ciphertext: chunk.ciphertext,
                }),
                data: Text::default(),
            };
            let attempt = chunk.attempt;
            let came = RelayEvent::ChunkCame {
                attempt,
                chunk: &frame,
            };
            self.step_relay(now, sent.request, came, by);
        }
        Ok(())
    }

    pub(super) fn is_dropped(&mut self) -> bool {
        self.plant == Some(Plant::DroppedChunk) && self.dropping.chance(Ratio::new(1, 4))
    }

    pub(super) fn follow_link(&mut self, conn: ConnId, effect: LinkEffect, by: &mut Hands<'_>) {
        match effect {
            LinkEffect::Close { .. } => by.deeds.push(Deed::Hangup { conn }),
            LinkEffect::Completed {
                attempt,
                wire: _,
                usage,
                parts,
            } => {
                let Some(sent) = self.sent.get(&attempt) else {
                    return;
                };
                let ended = RelayEvent::Completed {
                    attempt,
                    usage,
                    parts,
                };
                self.todo.push_back(Todo::Relay(sent.request, ended));
                // Told second: stale if the relay had something better to tell.
                let plain = completed(conn, attempt, usage, Shown::default());
                self.todo
                    .push_back(Todo::Core(Origin::Connection(conn), plain));
            }
            LinkEffect::Tell(event) => {
                if let Event::AttemptFailed { attempt, fault, .. } = event
                    && let Some(sent) = self.sent.get(&attempt)
                {
                    let errored = RelayEvent::Errored { attempt, fault };
                    self.todo.push_back(Todo::Relay(sent.request, errored));
                }
                let event = self.mislabelled(conn, event);
                self.todo
                    .push_back(Todo::Core(Origin::Connection(conn), event));
            }
            LinkEffect::Write { frame, deadline: _ } => by.deeds.push(Deed::Write { conn, frame }),
        }
    }

    /// The planted bug of connections: what an old one says is taken for the new one's word.
    pub(super) fn mislabelled(&self, conn: ConnId, event: Event<'static>) -> Event<'static> {
        let newest = self
            .machines
            .get(&conn)
            .and_then(|machine| self.newest.get(machine));
        let (Some(Plant::OldConnection), Some(&newest), Event::ProviderLeft { cause, .. }) =
            (self.plant, newest, &event)
        else {
            return event;
        };
        Event::ProviderLeft {
            conn: newest,
            cause: *cause,
        }
    }

    pub(super) fn step_relay(
        &mut self,
        now: Tick,
        request: RequestId,
        event: RelayEvent<'_>,
        by: &mut Hands<'_>,
    ) {
        let Some(answering) = self.answers.get_mut(&request) else {
            return;
        };
        let mut out = core::mem::take(&mut self.relay_out);
        out.clear();
        answering.relay.step(now, event, &mut out);
        if let Some((at, _)) = answering.relay.next_wake() {
            by.deeds.push(Deed::Wake {
                at,
                who: Sleeper::Relay(request),
            });
        }
        for effect in out.drain(..) {
            self.follow_relay(request, effect, by);
        }
        self.relay_out = out;
    }

    pub(super) fn follow_relay(
        &mut self,
        request: RequestId,
        effect: RelayEffect,
        by: &mut Hands<'_>,
    ) {
        let word = |word| Deed::Word { request, word };
        match effect {
            RelayEffect::AttemptStarted { attempt } => {
                self.of_attempt(attempt, |conn| Event::AttemptStarted { conn, attempt });
            }
            RelayEffect::AttemptProgressed { attempt, shown } => {
                self.of_attempt(attempt, |conn| Event::AttemptProgressed {
                    conn,
                    attempt,
                    shown,
                });
            }
            RelayEffect::AttemptCompleted {
                attempt,
                usage,
                shown,
                ending,
            } => {
                // Before the link's own word of it, which waits in the queue.
                if let Some(sent) = self.sent.get(&attempt) {
                    let event = Event::AttemptCompleted {
                        conn: sent.conn,
                        attempt,
                        usage,
                        shown,
                        ending,
                    };
                    let origin = Origin::Connection(sent.conn);
                    self.todo.push_front(Todo::Core(origin, event));
                }
            }
            RelayEffect::AttemptFailed {
                attempt,
                fault: AttemptFault::Encryption,
            } => {
                if let Some(sent) = self.sent.get(&attempt) {
                    let refused = LinkEvent::ChunkRefused { wire: sent.wire };
                    self.todo.push_back(Todo::Link(sent.conn, refused));
                }
            }
            RelayEffect::AttemptFailed { attempt, fault } => {
                self.of_attempt(attempt, |conn| Event::AttemptFailed {
                    conn,
                    attempt,
                    fault,
                });
            }
            RelayEffect::Cancel { attempt } => {
                if let Some(sent) = self.sent.get(&attempt) {
                    let cancel = LinkEvent::CancelRequested { attempt };
                    self.todo.push_back(Todo::Link(sent.conn, cancel));
                }
            }
            RelayEffect::Open => {}
            RelayEffect::Readable => by.deeds.push(word(Word::Readable)),
            RelayEffect::Refuse { denial } => by.deeds.push(word(Word::Refused(denial))),
            RelayEffect::Close => by.deeds.push(word(Word::Closed)),
        }
    }
}
