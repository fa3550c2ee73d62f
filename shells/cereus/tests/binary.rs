//! The binary as a person runs it.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn cereus(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cereus"))
        .args(args)
        .env_remove("CEREUS_API_KEY")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a failed command said; it must not have been a panic.
fn complaint(args: &[&str]) -> String {
    let output = cereus(args);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

fn demo(folder: &Path, more: &[&str]) {
    let data = folder.join("demo");
    let data = data.to_str().unwrap();
    let output = cereus(&[&["demo", "--once", "--data", data], more].concat());
    let (said, complained) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{said}\n{complained}");
    for part in [
        "coordinator",
        "registered and attested",
        "signed the coordinator's nonce",
        "sealed to",
        "tokens",
        "price",
        "balance",
        "queue",
        "accept",
        "prefill",
        "decode",
        "journal",
    ] {
        assert!(said.contains(part), "`{part}` is missing in:\n{said}");
    }
    assert!(!said.contains('\x1b'), "colour is for terminals");
    let journal = fs::read(folder.join("demo/journal/000001.journal")).unwrap();
    assert!(journal.len() > 100);
}

#[test]
fn the_demo_shows_an_answer_and_its_receipt_and_ends_well() {
    let folder = tempfile::tempdir().unwrap();
    demo(folder.path(), &["--echo", "--model", "tiny"]);
}

#[test]
fn a_limit_on_the_size_of_files_is_told_as_a_full_disk_is() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new("sh")
        .args(["-c", r#"ulimit -f 1; exec "$0" "$@""#])
        .arg(env!("CARGO_BIN_EXE_cereus"))
        .args(["key", "create", "--account", "ada", "--data"])
        .arg(folder.path())
        .output()
        .unwrap();
    let complained = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{complained}");
    assert!(complained.starts_with("cereus: "), "{complained}");
}

#[test]
fn the_demo_leaves_nothing_behind_where_nobody_named_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_cereus"))
        .args(["demo", "--once", "--echo", "--model", "tiny"])
        .env("TMPDIR", folder.path())
        .output()
        .unwrap();
    let (said, complained) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{said}\n{complained}");
    assert!(said.contains("removed at the end"), "{said}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[cfg(feature = "mlx")]
#[test]
fn the_demo_shows_an_answer_of_the_tiny_model() {
    let folder = tempfile::tempdir().unwrap();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../engine/models/tiny");
    demo(folder.path(), &["--model", model.to_str().unwrap()]);
}

#[test]
fn a_key_is_shown_once_and_listed_without_its_secret() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let made = cereus(&[
        "key",
        "create",
        "--data",
        data,
        "--account",
        "ada",
        "--quiet",
    ]);
    let key = text(&made.stdout).trim().to_owned();
    assert!(key.starts_with("sk-cereus-"), "{key}");
    let listed = text(&cereus(&["key", "list", "--data", data]).stdout);
    assert!(listed.contains("ada"));
    assert!(!listed.contains(&key));
    let credited = cereus(&[
        "credit",
        "--data",
        data,
        "--account",
        "ada",
        "--amount",
        "2.5",
    ]);
    assert!(text(&credited.stdout).contains("$2.500000"));
    let nobody = [
        "credit",
        "--data",
        data,
        "--account",
        "bob",
        "--amount",
        "1",
    ];
    let hint = format!("`cereus key create --account bob --data {data}`");
    assert!(complaint(&nobody).contains(&hint));
}

#[test]
fn money_for_a_folder_without_books_begins_none() {
    let folder = tempfile::tempdir().unwrap();
    let slip = folder.path().join("slip");
    let data = slip.to_str().unwrap();
    let credit = [
        "credit",
        "--account",
        "ada",
        "--amount",
        "1",
        "--data",
        data,
    ];
    let said = complaint(&credit);
    assert!(said.contains("there are no books in"), "{said}");
    assert!(said.contains(&format!("--data {data}`")), "{said}");
    assert!(!slip.exists());
}

#[test]
fn books_that_cannot_be_looked_for_are_not_said_to_be_absent() {
    let folder = tempfile::tempdir().unwrap();
    // Whoever may read everything is stopped by this as well.
    let file = folder.path().join("file");
    fs::write(&file, b"").unwrap();
    let data = file.to_str().unwrap();
    let below = format!("{data}/below");
    for (data, why) in [(data, "not a folder)"), (&below, "Not a directory")] {
        let said = complaint(&["account", "list", "--data", data]);
        let part = format!("cannot read the books in {data} ({why}");
        assert!(said.contains(&part), "{said}");
        assert!(!said.contains("there are no books"), "{said}");
    }
    let cache = ["local", "--echo", "--cache", data];
    assert!(complaint(&cache).contains("(not a folder)"));
    let other = folder.path().join("cache");
    let other = ["local", "--echo", "--cache", other.to_str().unwrap()];
    assert!(complaint(&[&other[..], &["--data", data]].concat()).contains("(not a folder)"));
    let demo = [
        "demo", "--once", "--echo", "--model", "tiny", "--data", data,
    ];
    assert!(complaint(&demo).contains("(not a folder)"));
    let create = ["key", "create", "--account", "ada", "--data", data];
    let said = complaint(&create);
    assert!(said.contains("(not a folder)"), "{said}");
}

/// What the binary says with a variable set, where that ends it.
fn complaint_with(variable: (&str, &[u8]), args: &[&str]) -> String {
    use std::os::unix::ffi::OsStrExt as _;

    let (name, value) = variable;
    let mut command = Command::new(env!("CARGO_BIN_EXE_cereus"));
    let command = command.args(args).env_remove("CEREUS_API_KEY");
    let value = std::ffi::OsStr::from_bytes(value);
    let output = command.env(name, value).output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
    said
}

#[test]
fn a_variable_that_holds_no_key_keeps_a_command_from_starting() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("provider");
    let provider = ["provider", "--echo", "--model-id", "tiny", "--data"];
    let provider = [&provider[..], &[data.to_str().unwrap()]].concat();
    let (local, chat) = (["local", "--echo"], ["chat", "--model", "tiny", "hello"]);
    for (name, args) in [
        ("CEREUS_LOCAL_KEY", &local[..]),
        ("CEREUS_EARN_KEY", &provider),
        ("CEREUS_API_KEY", &chat),
    ] {
        for (value, why) in [
            (&b""[..], "the key is empty; is its variable set?"),
            (b"ses\xffme", "outside visible ASCII"),
        ] {
            let said = complaint_with((name, value), args);
            assert!(said.contains(&format!("{name}: ")), "{said}");
            assert!(said.contains(why), "{said}");
        }
    }
    let said = complaint_with(("CEREUS_EARN_KEY", b"sesame"), &provider);
    assert!(said.contains("CEREUS_EARN_KEY: that is no key"), "{said}");
    assert!(!data.exists(), "nothing has begun");
}

#[test]
fn what_can_be_no_key_no_count_and_no_name_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    for list in [&["requests"][..], &["credit", "list"]] {
        let none = cereus(&[list, &["--data", data, "--last", "0"]].concat());
        assert_eq!(none.status.code(), Some(2), "the command line is wrong");
        assert!(text(&none.stderr).contains("0 is not in 1.."));
    }
    let reserved = ["key", "create", "--data", data, "--account"];
    let reserved = [&reserved[..], &["unlinked-machines"]].concat();
    assert!(complaint(&reserved).contains("is reserved"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// What a command says when its output goes to a disk that is full.
#[cfg(target_os = "linux")]
fn complaint_of_full_disk(args: &[&str]) -> String {
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cereus"));
    let output = command.args(args).stdout(full).output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
    said
}

#[cfg(target_os = "linux")]
#[test]
fn a_key_that_could_not_be_shown_is_told_with_how_to_end_it() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    for form in ["--quiet", "--json", "--credit=1"] {
        let create = ["key", "create", "--data", data, "--account", "ada", form];
        let said = complaint_of_full_disk(&create);
        assert!(said.contains("cannot write to standard output"), "{said}");
        let keys = lines(&["key", "list", "--data", data, "--json"]);
        let id = keys.iter().find_map(|key| {
            let id = key["id"].as_str().unwrap();
            said.contains(&format!("`cereus key revoke {id} --data {data}`"))
                .then(|| id.to_owned())
        });
        let id = id.unwrap_or_else(|| panic!("no key of the folder is named: {said}"));
        assert!(
            cereus(&["key", "revoke", &id, "--data", data])
                .status
                .success()
        );
    }
    for list in [["key", "list"], ["account", "list"]] {
        let list = [&list[..], &["--data", data]].concat();
        assert!(complaint_of_full_disk(&list).contains("standard output"));
    }
}

/// The lines that a command prints, each as JSON.
fn lines(args: &[&str]) -> Vec<Value> {
    let output = cereus(args);
    let said = text(&output.stdout);
    assert!(
        output.status.success(),
        "{args:?}: {}",
        text(&output.stderr)
    );
    said.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn an_operator_sees_and_mends_keys_and_money_from_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let data = ["--data", folder.path().to_str().unwrap()];
    let with = |args: &[&'static str]| [args, &data[..]].concat();
    let nothing = complaint(&with(&["account", "list"]));
    assert!(nothing.contains("cereus key create"), "{nothing}");

    let made = lines(&with(&[
        "key",
        "create",
        "--account",
        "ada",
        "--credit",
        "5",
        "--json",
    ]));
    let id = made[0]["id"].as_str().unwrap();
    let key = made[0]["key"].as_str().unwrap();

    // One credit that nobody may give, and one taken back.
    let too_much = cereus(&with(&[
        "credit",
        "--account",
        "ada",
        "--amount",
        "9223372036854.775807",
    ]));
    assert!(!too_much.status.success());
    assert!(text(&too_much.stderr).contains("at most $10000000"));
    let reversed = lines(&with(&["credit", "reverse", "1", "--json"]));
    assert_eq!(reversed[0]["micro_usd"], -5_000_000);
    assert!(complaint(&with(&["credit", "reverse", "1"])).contains("reversed already"));
    let hint = |words: &str| format!("`cereus {words} {} {}`", data[0], data[1]);
    assert!(complaint(&with(&["credit", "reverse", "9"])).contains(&hint("credit list")));
    let listed = lines(&with(&["credit", "list", "--account", "ada", "--json"]));
    assert_eq!(listed.len(), 2);
    assert_eq!(listed[1]["reversed_by"], listed[0]["id"]);
    assert_eq!(listed[0]["state"], "waiting");
    let bare = cereus(&with(&["credit"]));
    assert_eq!(bare.status.code(), Some(2), "the command line is wrong");
    assert!(text(&bare.stderr).contains("--amount"));

    let accounts = lines(&with(&["account", "list", "--json"]));
    assert_eq!(accounts[0]["account"], "ada");
    assert_eq!(accounts[0]["keys"], 1);
    let revoke = [&["key", "revoke", id][..], &data].concat();
    assert!(text(&cereus(&revoke).stdout).starts_with("Revoked"));
    let again = text(&cereus(&revoke).stdout);
    assert!(again.contains("was revoked before"), "{again}");
    let again = lines(&[&revoke[..], &["--json"]].concat());
    assert_eq!(again[0]["was_revoked"], true);
    let keys = lines(&with(&["key", "list", "--json"]));
    assert_eq!(keys[0]["revoked"], true);
    assert!(complaint(&with(&["key", "revoke", "key_none"])).contains(&hint("key list")));

    let audit = lines(&with(&["audit", "--json"]));
    assert_eq!(audit[0]["agree"], true);
    assert!(lines(&with(&["requests", "--json"])).is_empty());
    assert!(lines(&with(&["earnings", "--json"])).is_empty());
    for list in ["account", "credit", "key"] {
        let said = text(&cereus(&with(&[list, "list"])).stdout);
        assert!(said.contains("ada"), "{said}");
        assert!(said.lines().next().unwrap().contains("ACCOUNT"), "{said}");
        assert!(!said.contains(key), "{said}");
        assert!(said.lines().all(|line| line.trim_end() == line), "{said}");
    }
}

#[test]
fn the_doctor_explains_what_a_model_would_take() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("llama-tiny");
    fs::create_dir(&model).unwrap();
    let config = r#"{"model_type":"llama","hidden_size":64,"intermediate_size":128,
        "num_hidden_layers":8,"num_attention_heads":4,"vocab_size":640,"rms_norm_eps":1e-5}"#;
    fs::write(model.join("config.json"), config).unwrap();
    let tiny = env!("CARGO_MANIFEST_DIR").to_owned() + "/../../engine/models/tiny/tokenizer.json";
    fs::copy(tiny, model.join("tokenizer.json")).unwrap();
    let tensor = br#"{"w":{"dtype":"F32","shape":[249,1000],"data_offsets":[0,996000]}}"#;
    let mut weights = 3_992_u64.to_le_bytes().to_vec();
    weights.extend(tensor);
    weights.resize(4_000, b' ');
    weights.resize(1_000_000, 0);
    fs::write(model.join("model.safetensors"), weights).unwrap();
    let name = model.to_str().unwrap();

    let said = cereus(&["doctor", "--json", name]);
    let report: Value = serde_json::from_slice(&said.stdout).unwrap();
    let terms = &report["models"][0]["terms"];
    assert_eq!(terms["weights_bytes"], 1_000_000);
    assert_eq!(terms["required_bytes"], 1_200_000 + (4_u64 << 30));
    // Two bytes a number on a GPU, four on a CPU.
    let width = if cfg!(target_os = "macos") { 2 } else { 4 };
    assert_eq!(terms["kv_per_token_bytes"], 8 * 64 * 2 * width);
    let machine = &report["machine"];
    assert!(machine["hard_cap_bytes"].as_u64() < machine["physical_bytes"].as_u64());

    let said = text(&cereus(&["doctor", "--explain-memory", name]).stdout);
    for part in [
        "free_for_load",
        "= loaded + load_headroom",
        "llama-tiny (llama)",
    ] {
        assert!(said.contains(part), "`{part}` is missing in:\n{said}");
    }
    assert!(said.lines().all(|line| line.trim_end() == line), "{said}");

    // So much is reserved that nothing fits anywhere.
    let refused = ["doctor", "--memory-reserve-gb", "1000000", name];
    assert!(complaint(&refused).contains("checks failed"));
    let said = text(&cereus(&refused).stdout);
    assert!(
        said.contains("would be refused: insufficient memory (0.0 GB free"),
        "{said}"
    );
}

#[test]
fn models_are_listed_with_their_hashes_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("models");
    fs::create_dir_all(root.join("one-4bit")).unwrap();
    fs::write(root.join("one-4bit/config.json"), "{}").unwrap();
    fs::write(root.join("one-4bit/model.safetensors"), "weights").unwrap();
    let (root, data) = (root.to_str().unwrap(), folder.path().join("data"));
    let list = ["models", "list", "--all", "--json", "--data"];
    let list = [&list[..], &[data.to_str().unwrap(), root]].concat();
    let listed = |args: &[&str]| -> Value { serde_json::from_slice(&cereus(args).stdout).unwrap() };
    let plain = listed(&list);
    assert_eq!(plain["id"], "one-4bit");
    assert_eq!(plain["quantization"], "4bit");
    assert_eq!(plain["size_bytes"], 7);
    assert!(plain.get("weight_hash").is_none());
    assert!(!data.exists(), "nothing is hashed unasked");
    let hashed = listed(&[&list[..], &["--hash"]].concat());
    assert_eq!(hashed["weight_hash"].as_str().map(str::len), Some(64));
    // From now on it is known.
    assert_eq!(listed(&list), hashed);
    assert!(text(&cereus(&["models", "list", root]).stdout).contains("--all shows why"));
    let empty = Path::new(root).join("empty");
    fs::create_dir(&empty).unwrap();
    let said = text(&cereus(&["models", "list", "--all", root]).stdout);
    let passed_over = format!("{} is passed over: it holds no weights", empty.display());
    assert!(said.contains(&passed_over), "{said}");
    let nowhere = format!("{root}/nowhere");
    assert!(complaint(&["models", "list", &nowhere]).contains(&nowhere));
}

#[test]
fn a_listed_model_has_the_parameters_that_its_files_hold() {
    let folder = tempfile::tempdir().unwrap();
    let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/../../engine/models/tiny");
    let data = folder.path().to_str().unwrap();
    let list = ["models", "list", "--all", "--data", data, tiny];
    let listed = lines(&[&list[..], &["--json"]].concat());
    // As its own page says.
    assert_eq!(listed[0]["parameters"], 869_760);
    let said = text(&cereus(&list).stdout);
    assert!(said.contains(" 870 k "), "{said}");
}

#[test]
fn what_is_wrong_with_a_start_is_said_with_a_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let model = ["--model", "tiny:1:1"];

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = listener.local_addr().unwrap().to_string();
    let busy = ["coordinator", "--data", &at("busy"), "--listen", &listen];
    assert!(complaint(&[&busy[..], &model].concat()).contains("choose another with --listen"));

    fs::create_dir(at("corrupt")).unwrap();
    fs::write(
        Path::new(&at("corrupt")).join("cereus.sqlite"),
        vec![7; 4_096],
    )
    .unwrap();
    let corrupt = [
        "coordinator",
        "--data",
        &at("corrupt"),
        "--listen",
        "127.0.0.1:0",
    ];
    assert!(complaint(&[&corrupt[..], &model].concat()).contains("restore a backup"));

    fs::write(at("file"), b"").unwrap();
    let unwritable = [
        "coordinator",
        "--data",
        &at("file/below"),
        "--listen",
        "127.0.0.1:0",
    ];
    assert!(complaint(&[&unwritable[..], &model].concat()).contains("--data"));

    let empty = [
        "coordinator",
        "--data",
        &at("empty"),
        "--listen",
        "127.0.0.1:0",
    ];
    assert!(complaint(&empty).contains("--model-catalog"));

    let nowhere = at("nowhere");
    let said = complaint(&["provider", "--models", &nowhere]);
    assert!(
        said.contains(&format!("cannot read the folder {nowhere}")),
        "{said}"
    );

    let address = [
        "provider",
        "--echo",
        "--model-id",
        "tiny",
        "--coordinator",
        "nowhere",
        "--data",
        &at("provider"),
    ];
    assert!(complaint(&address).contains("http://127.0.0.1:8080"));

    assert!(complaint(&["chat", "--model", "tiny", "hello"]).contains("CEREUS_API_KEY"));
    let port = listener.local_addr().unwrap().port().to_string();
    let busy = [
        "demo", "--once", "--echo", "--model", "tiny", "--port", &port,
    ];
    let said = complaint(&busy);
    assert!(said.contains("choose another with --port"), "{said}");
    let room = ["local", "--echo", "--kv-gb", "1000000"];
    assert!(complaint(&room).contains("--kv-gb asks for 1000000.00 GiB"));
    assert!(complaint(&["demo", "--once", "--model", &at("no-model")]).contains("config.json"));
}

#[cfg(feature = "mlx")]
#[test]
fn a_folder_without_a_model_is_told_before_a_port_that_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = listener.local_addr().unwrap().to_string();
    let no_model = folder.path().to_str().unwrap();
    let said = complaint(&["local", no_model, "--listen", &listen]);
    assert!(said.contains("config.json"), "{said}");
    assert!(!said.contains("template"), "{said}");
}

#[test]
fn prices_cannot_be_read_anew_where_no_coordinator_runs() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let reload = ["prices", "reload", "--data", data];
    assert!(complaint(&reload).contains("there are no books"));
    cereus(&["key", "create", "--data", data, "--account", "ada"]);
    let said = complaint(&reload);
    assert!(said.contains("no coordinator runs on"), "{said}");
    assert!(said.contains("`cereus coordinator"), "{said}");
    let help = text(&cereus(&["prices", "reload", "--help"]).stdout);
    assert!(help.contains("cereus prices reload --data data"), "{help}");
}
