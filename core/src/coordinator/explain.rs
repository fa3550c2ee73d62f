//! Why a request would go where it would go, for people.

use core::fmt;

use super::Coordinator;
use super::fleet::{Reach, Want, Weighed};
use crate::event::{Ask, Machines};
use crate::ids::{ConnId, MachineId};
use crate::time::Span;

/// What would become of a request that arrived at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// It would be sent here.
    Now(ConnId),
    /// It would wait: machines that could take it are full.
    Waits,
    /// Machines serve the model, and none of them that suits is large enough.
    NoneLargeEnough,
    /// Machines serve the model, and none of them is what the request demands.
    NoneSuited,
    /// No machine serves the model at present.
    Nobody,
    /// The model is not sold.
    UnknownModel,
}

/// A machine that was compared with others, and what it would cost to send the request there: time that
/// somebody waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contender {
    pub conn: ConnId,
    pub machine: MachineId,
    /// Requests that it runs.
    pub load: u32,
    /// Of the prompt, what it has read before.
    pub cached_tokens: u32,
    /// Until the prompt is begun.
    pub wait: Span,
    /// Until it is read.
    pub prefill: Span,
    /// What the rows beside it lose meanwhile, as far as that counts.
    pub stalled: Span,
    /// Its answer, as far as that counts.
    pub answer: Span,
    /// By how much it slows the answers beside it, as far as that counts.
    pub slowed: Span,
    /// The sum.
    pub cost: Span,
}

/// The facts of one ask, and what the fleet makes of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    pub ask: Ask,
    pub outlook: Outlook,
    /// Machines that serve everybody and could take some request of this model now.
    pub open: usize,
    /// How many offers of the model each reason closes; one offer may have several.
    pub closed: Vec<(&'static str, u32)>,
    /// The asker's own machines that serve nobody else.
    pub own: usize,
    /// Whom the choice compares, the chosen first; a policy that compares no costs names its pick alone.
    pub weighed: Vec<Contender>,
}

impl Coordinator {
    /// Which connection an arrival would be sent to at this moment. Changes nothing; the same code
    /// decides for real.
    #[must_use]
    pub fn preview(&self, ask: Ask) -> Option<ConnId> {
        self.config.catalog.spec(ask.model)?;
        let want = self.want(&ask);
        let first = self.fleet.first_choice(self.now, want, &self.config)?;
        Some(self.fleet.seller(first.choice.offer).id.conn)
    }

    /// What a request that has just come looks for.
    pub(super) fn want<'a>(&self, ask: &'a Ask) -> Want<'a> {
        let output_tokens = match self.fleet.takes_bounds_for_lengths() {
            true => ask.output_tokens_max,
            false => self.lengths.expected(ask),
        };
        Want::of(ask, output_tokens)
    }

    /// Changes nothing; the same code decides for real.
    #[must_use]
    pub fn explain(&self, ask: Ask) -> Explanation {
        let mut explanation = Explanation {
            ask,
            outlook: Outlook::UnknownModel,
            open: 0,
            closed: Vec::new(),
            own: 0,
            weighed: Vec::new(),
        };
        if self.config.catalog.spec(ask.model).is_none() {
            return explanation;
        }
        let want = self.want(&ask);
        explanation.outlook = match self.preview(ask) {
            Some(conn) => Outlook::Now(conn),
            None => match self.fleet.reach(&want) {
                Reach::Possible => Outlook::Waits,
                Reach::NoneLargeEnough => Outlook::NoneLargeEnough,
                Reach::NoneSuited => Outlook::NoneSuited,
                Reach::Nobody => Outlook::Nobody,
            },
        };
        let supply = self.fleet.supply(ask.model);
        explanation.open = supply.open_count();
        explanation.own = self.fleet.own(ask.model, ask.account).len();
        explanation.closed = supply.closed().collect();
        let weighed = self.fleet.weighed(want, &self.config);
        explanation.weighed = weighed.iter().map(|it| self.contender(it)).collect();
        explanation
    }

    fn contender(&self, weighed: &Weighed) -> Contender {
        let id = self.fleet.seller(weighed.offer).id;
        let cost = weighed.cost;
        Contender {
            conn: id.conn,
            machine: id.machine,
            load: weighed.load,
            cached_tokens: weighed.cached_tokens,
            wait: Span(cost.wait_us),
            prefill: Span(cost.prefill_us),
            stalled: Span(cost.stalled_us),
            answer: Span(cost.answer_us),
            slowed: Span(cost.slowed_us),
            cost: Span(cost.total_us()),
        }
    }

    /// Whether the machine of a connection is barred for its faults at this moment.
    #[must_use]
    pub fn is_barred(&self, conn: ConnId) -> bool {
        let slot = self.fleet.find(conn);
        slot.is_some_and(|slot| self.fleet.barred_until(slot).is_some())
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ask = &self.ask;
        writeln!(
            f,
            "request {}: account {}, model {}, about {} prompt tokens (at most {}), at most {} out",
            ask.request,
            ask.account.0,
            ask.model.0,
            ask.prompt_tokens,
            ask.prompt_tokens_bound,
            ask.output_tokens_max
        )?;
        let machines = match ask.machines {
            Machines::Any => "any machine",
            Machines::Own => "only its own machines",
            Machines::OwnFirst => "its own machines first",
        };
        write!(f, "demands {} of {machines}", ask.demands())?;
        if let Some(within) = ask.content_within {
            write!(f, ", and content within {} ms", within.as_millis_floor())?;
        }
        writeln!(f)?;
        match self.outlook {
            Outlook::Now(conn) => writeln!(f, "goes to connection {} now", conn.0),
            Outlook::Waits => writeln!(f, "waits: machines that could take it are full"),
            Outlook::NoneLargeEnough => writeln!(f, "refused: no machine is large enough"),
            Outlook::NoneSuited => writeln!(f, "refused: no machine is what it demands"),
            Outlook::Nobody => writeln!(f, "refused: no machine serves the model at present"),
            Outlook::UnknownModel => return writeln!(f, "refused: the model is not sold"),
        }?;
        writeln!(f, "{} offers open, {} of its own", self.open, self.own)?;
        for (reason, count) in &self.closed {
            writeln!(f, "{count} closed: {reason}")?;
        }
        self.show_weighed(f)
    }
}

/// Contenders that are shown to a person.
const SHOWN_MAX: usize = 8;

impl Explanation {
    fn show_weighed(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.weighed.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "{} compared; milliseconds that somebody waits:",
            self.weighed.len()
        )?;
        writeln!(
            f,
            "{:>10} {:>5} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "connection",
            "rows",
            "cached",
            "wait",
            "prefill",
            "stalled",
            "answer",
            "slowed",
            "cost"
        )?;
        let ms = |span: Span| format!("{}.{}", span.0 / 1_000, span.0 / 100 % 10);
        for it in self.weighed.iter().take(SHOWN_MAX) {
            writeln!(
                f,
                "{:>10} {:>5} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
                it.conn.0,
                it.load,
                it.cached_tokens,
                ms(it.wait),
                ms(it.prefill),
                ms(it.stalled),
                ms(it.answer),
                ms(it.slowed),
                ms(it.cost)
            )?;
        }
        Ok(())
    }
}
