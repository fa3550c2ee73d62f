//! Commands on a coordinator's data folder: keys, money, requests.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::values::millionths;

/// Rows that a list shows where --last is not given.
const LAST_DEFAULT: u32 = 20;

/// Where a coordinator keeps its books, and how a list of them is printed.
#[derive(Args)]
pub(crate) struct ListArgs {
    /// The coordinator's data folder
    #[arg(long, default_value = "cereus-data")]
    pub(crate) data: PathBuf,
    /// Print JSON, one object on each line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key, and its account if it is new; prints the key once
    Create(KeyCreateArgs),
    /// List keys, without their secrets
    List(KeyListArgs),
    /// End a key for good
    Revoke(KeyRevokeArgs),
}

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cereus key create --account ada --credit 5\n  \
    KEY=$(cereus key create --account ada --quiet)\n\n\
    Works while a coordinator runs on the same folder: when the command returns, the key is known.")]
pub(crate) struct KeyCreateArgs {
    #[arg(long, default_value = "cereus-data")]
    pub(crate) data: PathBuf,
    /// The account's name
    #[arg(long)]
    pub(crate) account: String,
    /// Money to add to it, in US dollars
    #[arg(long, value_name = "USD", value_parser = parse_usd)]
    pub(crate) credit: Option<i64>,
    /// Print the key and nothing else
    #[arg(long, short, conflicts_with = "json")]
    pub(crate) quiet: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cereus key list --data data\n  \
    cereus key list --data data --json")]
pub(crate) struct KeyListArgs {
    #[command(flatten)]
    pub(crate) list: ListArgs,
}

#[derive(Args)]
#[command(after_help = "Example:\n  \
    cereus key revoke --data data key_0123456789abcdef01234567\n\n\
    `cereus key list` shows the ids. What runs under the key finishes; nothing more is admitted.\n\
    A machine that earns by the key does so until it connects anew, and for nobody from then on.")]
pub(crate) struct KeyRevokeArgs {
    #[command(flatten)]
    pub(crate) list: ListArgs,
    /// The key's id, as in `key_...`
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}

#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  \
    cereus credit --account ada --amount 2.50\n  \
    cereus credit list --account ada\n  \
    cereus credit reverse 7\n\n\
    Works while a coordinator runs on the same folder: when the command returns, the money is there."
)]
pub(crate) struct CreditArgs {
    #[command(subcommand)]
    pub(crate) command: Option<CreditCommand>,
    #[command(flatten)]
    pub(crate) add: Option<CreditAddArgs>,
}

#[derive(Subcommand)]
pub(crate) enum CreditCommand {
    /// What came in, the newest first: what was applied, what waits, what was set aside and why
    List(CreditListArgs),
    /// Take a credit back by a counter-entry
    Reverse(CreditReverseArgs),
}

#[derive(Args)]
pub(crate) struct CreditAddArgs {
    #[arg(long, default_value = "cereus-data")]
    pub(crate) data: PathBuf,
    /// The account's name
    #[arg(long)]
    pub(crate) account: String,
    /// US dollars, to the millionth; ten millions at most
    #[arg(long, value_name = "USD", value_parser = parse_usd)]
    pub(crate) amount: i64,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
#[command(after_help = "Example:\n  cereus credit list --data data --account ada --last 50")]
pub(crate) struct CreditListArgs {
    #[command(flatten)]
    pub(crate) list: ListArgs,
    /// Of this account only
    #[arg(long)]
    pub(crate) account: Option<String>,
    /// How many
    #[arg(long, default_value_t = LAST_DEFAULT, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) last: u32,
}

#[derive(Args)]
#[command(after_help = "Example:\n  \
    cereus credit reverse --data data 7\n\n\
    `cereus credit list` shows the numbers. The whole credit is taken back, also where it was spent\n\
    since: the account then owes, and is served again when it has been credited so much.")]
pub(crate) struct CreditReverseArgs {
    #[command(flatten)]
    pub(crate) list: ListArgs,
    /// The credit's number
    #[arg(value_name = "ID", value_parser = parse_credit_id)]
    pub(crate) id: i64,
}

#[derive(Subcommand)]
pub(crate) enum AccountCommand {
    /// Every account: what it may spend, what is held, what it earned
    List(AccountListArgs),
}

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cereus account list --data data\n  \
    cereus account list --data data --json")]
pub(crate) struct AccountListArgs {
    #[command(flatten)]
    pub(crate) list: ListArgs,
}

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cereus requests --data data\n  \
    cereus requests --data data --account ada --last 100 --json\n\n\
    Those that money was held for, the newest first. Sizes are known while a receipt is kept.")]
pub(crate) struct RequestsArgs {
    #[command(flatten)]
    pub(crate) list: ListArgs,
    /// Of this account only
    #[arg(long)]
    pub(crate) account: Option<String>,
    /// How many
    #[arg(long, default_value_t = LAST_DEFAULT, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) last: u32,
}

#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  \
    cereus earnings --data data\n  \
    cereus earnings --data data --json\n\n\
    Earnings are a record: nothing pays them out, and no key can spend them. They are what was charged\n\
    less the 10 % that the platform keeps.\n\n\
    Machines that named no key earn for the account `unlinked-machines`. An owner gets that later:\n  \
    cereus earnings prove key_0123456789abcdef01234567      at the machine; prints a proof\n  \
    cereus earnings move --data data PROOF                   at the coordinator"
)]
pub(crate) struct EarningsArgs {
    #[command(subcommand)]
    pub(crate) command: Option<EarningsCommand>,
    #[command(flatten)]
    pub(crate) list: ListArgs,
}

#[derive(Subcommand)]
pub(crate) enum EarningsCommand {
    /// Prove that this machine is yours, and whose its earnings without an account shall be
    Prove(EarningsProveArgs),
    /// Move what a machine earned without an account, by its owner's proof
    Move(EarningsMoveArgs),
}

#[derive(Args)]
#[command(after_help = "Example:\n  \
    cereus earnings prove --provider cereus-provider key_0123456789abcdef01234567\n\n\
    `cereus key create` showed the key's id. The proof is no secret: it is good for that key's account\n\
    alone. With --earn-key the machine earns for the account from then on.")]
pub(crate) struct EarningsProveArgs {
    /// Folder of the machine's key: the provider's --data
    #[arg(long, default_value = "cereus-provider")]
    pub(crate) provider: PathBuf,
    /// The id of an API key of the account, as in `key_...`
    #[arg(value_name = "ID")]
    pub(crate) key_id: String,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
#[command(after_help = "Example:\n  \
    cereus earnings move --data data PROOF\n\n\
    Works while a coordinator runs. Which machine earned what is known as long as receipts are kept.")]
pub(crate) struct EarningsMoveArgs {
    #[command(flatten)]
    pub(crate) list: ListArgs,
    /// What `cereus earnings prove` printed
    #[arg(value_name = "PROOF")]
    pub(crate) proof: String,
}

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cereus providers --data data\n  \
    cereus providers --data data --json\n\n\
    Asks the coordinator that runs on the folder. ACCOUNT is whose the machine's\n\
    earnings are by the key that it named when it connected, also where that was revoked since: from its\n\
    next connection on they are nobody's. LOAD is what a machine has of a model, ours and\n\
    others', of what it says that it runs at once. STATE says why no work goes there; several reasons\n\
    may hold.")]
pub(crate) struct ProvidersArgs {
    #[command(flatten)]
    pub(crate) list: ListArgs,
}

#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  \
    cereus prices --data data\n  \
    cereus prices --data data --json\n  \
    cereus prices reload --data data      after the catalogue file was changed\n\n\
    Asks the coordinator that runs on the folder. Prices are of a million tokens; LEAST is what a\n\
    request costs at least. ANSWER is the most tokens that an answer may have where its request names\n\
    no max_tokens: the catalogue's output_tokens_default. The platform keeps 10 % of each charge; the\n\
    rest is what the machine's account earned."
)]
pub(crate) struct PricesArgs {
    #[command(subcommand)]
    pub(crate) command: Option<PricesCommand>,
    #[command(flatten)]
    pub(crate) list: ListArgs,
}

#[derive(Subcommand)]
pub(crate) enum PricesCommand {
    /// Have a running coordinator read its --model-catalog file anew, and sell what stands there
    Reload(PricesReloadArgs),
}

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cereus prices reload --data data\n  \
    cereus prices reload --data data --json\n\n\
    Prints each model that changed. What runs ends at the price that it was promised; machines that\n\
    have a new model serve it without connecting anew. Who waits for a model that goes, or that changes\n\
    in more than its price, is refused. A file that is not right changes nothing. Models named by --model\n\
    stay as they are.")]
pub(crate) struct PricesReloadArgs {
    #[command(flatten)]
    pub(crate) list: ListArgs,
}

#[derive(Args)]
#[command(after_help = "Example:\n  \
    cereus audit --data data\n\n\
    Says also what the platform has kept, which is 10 % of each charge.\n\n\
    Every start looks at what was written since the last audit; this looks at everything, and at the\n\
    file itself. Works while a coordinator runs, which waits while it does.")]
pub(crate) struct AuditArgs {
    #[command(flatten)]
    pub(crate) list: ListArgs,
}

/// As `cereus credit list` shows it.
fn parse_credit_id(text: &str) -> Result<i64, String> {
    let id = text.parse().ok().filter(|id| *id > 0);
    id.ok_or_else(|| {
        format!(
            "`{text}`: expected a credit's number as `cereus credit list` shows it, for instance 7"
        )
    })
}

/// US dollars as whole millionths, without floating point.
fn parse_usd(text: &str) -> Result<i64, String> {
    use cereus_core::money::{DEPOSIT_MAX, MicroUsd};

    let amount = millionths(text)
        .filter(|amount| *amount > 0)
        .ok_or_else(|| {
            format!(
                "`{text}`: expected dollars, more than none and to the millionth, for instance 5 or \
                 2.50"
            )
        })?;
    if !MicroUsd(amount).is_within(DEPOSIT_MAX) {
        return Err(format!(
            "`{text}`: at most {} at once; give more in several credits",
            crate::books::dollars(DEPOSIT_MAX.0)
        ));
    }
    Ok(amount)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_are_read_to_the_millionth_and_no_further() {
        let cases = [
            ("5", 5_000_000),
            ("2.50", 2_500_000),
            ("0.000001", 1),
            ("10.1", 10_100_000),
            ("10000000", 10_000_000_000_000),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_usd(text), Ok(expected));
        }
        for text in [
            "",
            ".",
            "1.",
            ".5",
            "-1",
            "0",
            "0.0000001",
            "1e3",
            "10000000.000001",
            "9223372036854.775807",
            "99999999999999999999",
        ] {
            assert!(parse_usd(text).is_err(), "{text}");
        }
        assert!(parse_usd("0").unwrap_err().contains("more than none"));
    }

    #[test]
    fn a_credit_is_named_by_its_number() {
        assert_eq!(parse_credit_id("7"), Ok(7));
        for text in ["", "abc", "0", "-1", "7.5", "9223372036854775808"] {
            let said = parse_credit_id(text).unwrap_err();
            assert!(said.contains("`cereus credit list`"), "{said}");
        }
    }
}
