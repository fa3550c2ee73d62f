//! The attempts of one request that the coordinator has sent out, in the order of its decisions.
//!
//! Connections bring keys and chunks in whatever order their tasks run; an attempt that the
//! coordinator did not name, or has given up, finds no place here.

use core::hash::{Hash, Hasher};

use super::breach::Breach;
use super::{HELD_SIZE_MAX, RACING_MAX};
use crate::api::{Dialect, FinishReason};
use crate::envelope::{BoxKey, KeyText};
use crate::ids::AttemptKey;

/// What opens an attempt's chunks. Dropped, and so wiped, when nothing more of it is relayed.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) key: BoxKey,
    pub(super) sealer: KeyText,
    /// Of what its chunks hold: a machine's own.
    pub(super) dialect: Dialect,
}

#[derive(Debug)]
struct Runner {
    key: AttemptKey,
    opening: Option<Opening>,
    /// Nothing more of it is relayed; its terminal is still awaited.
    is_muted: bool,
    finish: Option<FinishReason>,
    /// What it said since another has won, sealed, until the coordinator has made up its mind.
    held: Vec<String>,
    held_size: usize,
    /// More came than is held.
    is_torn: bool,
}

/// See the module. Older attempts stand before newer ones.
#[derive(Debug, Default)]
pub(super) struct Racing {
    runners: [Option<Runner>; RACING_MAX],
}

impl Racing {
    /// The oldest makes room: the coordinator runs no more than there are places, so it is over, and
    /// only its connection has yet to say so.
    pub(super) fn dispatched(&mut self, key: AttemptKey) {
        if self.runners.iter().all(Option::is_some) {
            self.runners[0] = None;
        }
        self.close_up();
        let free = self.runners.iter_mut().find(|place| place.is_none());
        let free = free.expect("a place was made free");
        *free = Some(Runner {
            key,
            opening: None,
            is_muted: false,
            finish: None,
            held: Vec::new(),
            held_size: 0,
            is_torn: false,
        });
    }

    pub(super) fn began(&mut self, key: AttemptKey, box_key: BoxKey, sealer: KeyText) {
        if let Some(runner) = self.find_mut(key).filter(|runner| !runner.is_muted) {
            runner.opening = Some(Opening {
                key: box_key,
                sealer,
                dialect: Dialect::ChatChunks,
            });
        }
    }

    /// Its end has not come.
    pub(super) fn knows(&self, key: AttemptKey) -> bool {
        self.find(key).is_some()
    }

    /// What it says is relayed.
    pub(super) fn runs(&self, key: AttemptKey) -> bool {
        self.find(key).is_some_and(|runner| !runner.is_muted)
    }

    pub(super) fn opening(&self, key: AttemptKey) -> Option<&Opening> {
        self.find(key)?.opening.as_ref()
    }

    pub(super) fn hold(&mut self, key: AttemptKey, ciphertext: &str) {
        let Some(runner) = self.find_mut(key) else {
            return;
        };
        let size = runner.held_size + ciphertext.len();
        if runner.is_torn || size > HELD_SIZE_MAX {
            runner.is_torn = true;
            runner.held = Vec::new();
            return;
        }
        runner.held_size = size;
        runner.held.push(ciphertext.to_owned());
    }

    /// What was held of an attempt, oldest first.
    pub(super) fn take_held(&mut self, key: AttemptKey) -> Result<Vec<String>, Breach> {
        let Some(runner) = self.find_mut(key) else {
            return Ok(Vec::new());
        };
        if runner.is_torn {
            return Err(Breach::Torn);
        }
        runner.held_size = 0;
        Ok(core::mem::take(&mut runner.held))
    }

    pub(super) fn finishes(&mut self, key: AttemptKey, reason: FinishReason) {
        if let Some(runner) = self.find_mut(key) {
            runner.finish = Some(reason);
        }
    }

    pub(super) fn finish_of(&self, key: AttemptKey) -> Option<FinishReason> {
        self.find(key)?.finish
    }

    pub(super) fn mute(&mut self, key: AttemptKey) {
        if let Some(runner) = self.find_mut(key) {
            runner.mute();
        }
    }

    pub(super) fn mute_all(&mut self) {
        self.runners.iter_mut().flatten().for_each(Runner::mute);
    }

    pub(super) fn mute_all_but(&mut self, key: AttemptKey) {
        let others = self.runners.iter_mut().flatten();
        others
            .filter(|runner| runner.key != key)
            .for_each(Runner::mute);
    }

    pub(super) fn remove(&mut self, key: AttemptKey) {
        for place in &mut self.runners {
            place.take_if(|runner| runner.key == key);
        }
        self.close_up();
    }

    /// Free places stand last.
    fn close_up(&mut self) {
        self.runners.sort_by_key(Option::is_none);
    }

    fn find(&self, key: AttemptKey) -> Option<&Runner> {
        self.runners
            .iter()
            .flatten()
            .find(|runner| runner.key == key)
    }

    fn find_mut(&mut self, key: AttemptKey) -> Option<&mut Runner> {
        let mut runners = self.runners.iter_mut().flatten();
        runners.find(|runner| runner.key == key)
    }
}

impl Hash for Racing {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for runner in &self.runners {
            let known = runner.as_ref().map(|it| {
                let has_opening = it.opening.is_some();
                (
                    it.key,
                    has_opening,
                    it.is_muted,
                    it.finish,
                    &it.held,
                    it.is_torn,
                )
            });
            known.hash(state);
        }
    }
}

impl Runner {
    fn mute(&mut self) {
        self.is_muted = true;
        self.opening = None;
        self.held = Vec::new();
        self.is_torn = false;
    }
}
