use std::ffi::OsString;
use std::path::Path;

use clap::{Args as _, Command, FromArgMatches as _};

use super::file::parse;
use super::settings::NAMES;
use super::*;

fn flags(args: &[&str]) -> Settings {
    let matches = Settings::augment_args(Command::new("serve").no_binary_name(true)).get_matches_from(args);
    Settings::from_arg_matches(&matches).unwrap()
}

fn environment(variables: &[(&str, &str)]) -> Environment {
    variables.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect()
}

fn refused(text: &str) -> String {
    parse(Path::new("c.toml"), text).unwrap_err().to_string()
}

#[test]
fn a_setting_has_one_name_everywhere() {
    let command = Settings::augment_args(Command::new("serve"));
    let flags: Vec<_> = command.get_arguments().filter_map(|arg| arg.get_long()).collect();
    let names: Vec<_> = NAMES.iter().map(|name| name.replace('_', "-")).collect();
    assert_eq!(flags, names);
    // `set` knows every name: its error for an invalid value is not that the name is unknown.
    for name in NAMES {
        let wanted = Settings::default().set(name, &given::Given::Text("\u{0}")).err().unwrap_or_default();
        assert!(!wanted.contains("unknown setting"), "{name}");
    }
}

#[test]
fn a_flag_takes_precedence_over_a_variable_and_a_variable_over_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.toml");
    let text = "dir = 'file'\ninsecure = true\ncache_size = '1GiB'\ndisk_reserve = 4096\nlog_level = 'warn'\ndurability = 'os'";
    std::fs::write(&path, text).unwrap();
    let variables = environment(&[
        ("CARTWHEEL_DIR", "variable"),
        ("CARTWHEEL_CONFIG", path.to_str().unwrap()),
        ("CARTWHEEL_LOG_LEVEL", ""),
        ("CARTWHEEL_HTTP_LISTEN", "localhost:1"),
        ("CARTWHEEL_LOG_FORMAT", "json"),
    ]);
    let config = Config::resolve(flags(&["--http-listen", "[::1]:80", "--insecure=false"]), None, &variables).unwrap();
    assert_eq!(config.dir, Path::new("variable"), "a variable over the file");
    assert_eq!(config.http_listen.unwrap().as_str(), "[::1]:80", "a flag over a variable");
    assert!(!config.insecure, "a flag over the file");
    assert_eq!((config.cache_bytes, config.disk_reserve_bytes), (1 << 30, 4096), "the file over the default");
    assert_eq!(config.durability, Durability::Os);
    assert_eq!((config.log_level.to_string().as_str(), config.log_format), ("warn", LogFormat::Json));
    assert_eq!(config.peer_listen, None);

    let other = dir.path().join("other.toml");
    std::fs::write(&other, "log_format = 'human'").unwrap();
    let config = Config::resolve(flags(&[]), Some(other), &environment(&[("CARTWHEEL_DIR", "d")])).unwrap();
    assert_eq!((config.log_format, config.cache_bytes), (LogFormat::Human, 128 << 20), "--config names the file");
}

#[test]
fn settings_of_a_new_node_come_from_every_source() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.toml");
    let text =
        "dir = 'd'\nname = 'file'\nzone = 'file'\nhost = 'file'\nseed = ['file:1', '[::1]:2']\nshards = 3\njoin = true";
    std::fs::write(&path, text).unwrap();
    let variables = [
        ("CARTWHEEL_CONFIG", path.to_str().unwrap()),
        ("CARTWHEEL_NAME", "variable"),
        ("CARTWHEEL_ZONE", "variable"),
        ("CARTWHEEL_SEED", "variable:1, variable:2"),
        ("CARTWHEEL_PEER_ADDRESS", "variable:3"),
        ("CARTWHEEL_BOOTSTRAP", "true"),
    ];
    let of = |flags: Settings, variables: &[(&str, &str)]| {
        Config::resolve(flags, None, &environment(variables)).unwrap().new
    };
    let seeds = |new: &NewNode| new.seed.iter().flatten().map(|seed| seed.as_str().to_owned()).collect::<Vec<_>>();

    let new = of(flags(&[]), &variables[..1]);
    assert_eq!(
        (new.name.as_deref(), new.zone.as_deref(), new.host.as_deref()),
        (Some("file"), Some("file"), Some("file"))
    );
    assert_eq!((seeds(&new).join(" "), new.join, new.bootstrap), ("file:1 [::1]:2".to_owned(), Some(true), None));
    assert_eq!(new.shards.map(std::num::NonZeroU32::get), Some(3));

    let new = of(flags(&[]), &variables);
    assert_eq!(
        (new.name.as_deref(), new.host.as_deref()),
        (Some("variable"), Some("file")),
        "a variable over the file"
    );
    assert_eq!((seeds(&new).join(" "), new.bootstrap), ("variable:1 variable:2".to_owned(), Some(true)));
    assert_eq!(new.peer_address.unwrap().as_str(), "variable:3");

    let given = [
        "--name",
        "flag",
        "--seed",
        "flag:1,flag:2",
        "--seed",
        "flag:3",
        "--join=false",
        "--bootstrap=false",
        "--shards",
        "9",
    ];
    let new = of(flags(&given), &variables);
    assert_eq!((new.name.as_deref(), new.zone.as_deref()), (Some("flag"), Some("variable")), "a flag over a variable");
    assert_eq!(seeds(&new), ["flag:1", "flag:2", "flag:3"]);
    assert_eq!(
        (new.join, new.bootstrap, new.shards.map(std::num::NonZeroU32::get)),
        (Some(false), Some(false), Some(9))
    );
    assert_eq!(of(flags(&["--dir", "d"]), &[]), NewNode::default());
}

#[test]
fn every_setting_but_the_directory_has_a_default() {
    let missing = Config::resolve(flags(&[]), None, &environment(&[])).unwrap_err();
    assert!(missing.to_string().contains("--dir") && missing.to_string().contains("CARTWHEEL_DIR"));
    let config = Config::resolve(flags(&["--dir", "d"]), None, &environment(&[])).unwrap();
    assert_eq!((config.insecure, config.durability), (false, Durability::Fsync));
    assert_eq!((config.cache_bytes, config.disk_reserve_bytes), (128 << 20, 256 << 20));
    assert_eq!((config.log_level, config.log_format), (LogLevel::default(), LogFormat::Human));
}

#[test]
fn errors_in_a_file_name_the_line_and_the_valid_values() {
    let unknown = refused("dir = 'd'\n\ncache_sise = '1GiB'");
    assert!(
        unknown.starts_with("c.toml, line 3: unknown setting \"cache_sise\" (did you mean cache_size?)"),
        "{unknown}"
    );
    assert!(refused("disk-reserve = 1").contains("did you mean disk_reserve?"));
    let far = refused("[server]\nport = 1");
    assert!(far.contains("unknown setting \"server\"; use one of dir, http_listen"), "{far}");
    for (text, named, allowed) in [
        ("cache_size = '12 apples'", "cache_size is \"12 apples\"", "256MiB"),
        ("cache_size = 1.5", "cache_size is 1.5", "256MiB"),
        ("cache_size = -1", "cache_size is -1", "256MiB"),
        ("disk_reserve = '99999999TiB'", "disk_reserve is", "exceeds 2^64 bytes"),
        ("insecure = 'yes'", "insecure is \"yes\"", "true or false"),
        ("insecure = 1", "insecure is 1", "true or false"),
        ("durability = 'fast'", "durability is \"fast\"", "\"fsync\" or \"os\""),
        ("log_format = 'xml'", "log_format is \"xml\"", "\"human\" or \"json\""),
        ("log_level = 'loud'", "log_level is \"loud\"", "off, error, warn"),
        ("log_level = 3", "log_level is 3", "off, error, warn"),
        ("http_listen = '8080'", "http_listen is \"8080\"", "HOST:PORT"),
        ("http_listen = 8080", "http_listen is 8080", "HOST:PORT"),
        ("peer_listen = ['a:1']", "peer_listen is a list", "HOST:PORT"),
        ("dir = {}", "dir is a table", "a path"),
        ("seed = 'a'", "seed is \"a\"", "HOST:PORT"),
        ("seed = ['a:1', 'b']", "seed is a list", "HOST:PORT"),
        ("seed = [1]", "seed is a list", "HOST:PORT"),
        ("seed = 1", "seed is 1", "HOST:PORT"),
        ("name = 1", "name is 1", "as text"),
        ("join = 'yes'", "join is \"yes\"", "true or false"),
        ("shards = 0", "shards is 0", "from 1 on"),
        ("shards = 'many'", "shards is \"many\"", "from 1 on"),
        ("peer_address = 'a'", "peer_address is \"a\"", "HOST:PORT"),
    ] {
        let error = refused(text);
        assert!(error.starts_with("c.toml, line 1: ") && error.contains(named) && error.contains(allowed), "{error}");
    }
    assert!(refused("dir = ").starts_with("cannot parse c.toml"));
    assert!(refused("dir = 'a'\ndir = 'b'").contains("duplicate key"));
    let absent = Config::resolve(flags(&[]), Some("/nowhere/c.toml".into()), &environment(&[])).unwrap_err();
    assert!(absent.to_string().contains("/nowhere/c.toml"), "{absent}");
}

#[test]
fn an_error_in_a_variable_names_it() {
    let resolve =
        |name, value| Config::resolve(flags(&[]), None, &environment(&[(name, value)])).unwrap_err().to_string();
    let bad = resolve("CARTWHEEL_CACHE_SIZE", "lots");
    assert!(bad.contains("CARTWHEEL_CACHE_SIZE is \"lots\": give a size"), "{bad}");
    assert!(resolve("CARTWHEEL_INSECURE", "yes").contains("true or false"));
    let misspelt = environment(&[
        ("CARTWHEEL_DISK_RESERV", "1"),
        ("CARTWHEEL_PORT", "tcp://10.0.0.1"),
        ("CARTWHEEL_ENDPOINTS", "a:1"),
        ("HOME", "/"),
    ]);
    let unknown: Vec<_> = misspelt.unknown(&["CARTWHEEL_ENDPOINTS"]).collect();
    let expected = [("CARTWHEEL_DISK_RESERV", Some("CARTWHEEL_DISK_RESERVE")), ("CARTWHEEL_PORT", None)];
    assert_eq!(unknown, expected.map(|(name, nearest)| (name.to_owned(), nearest.map(str::to_owned))));
}

#[test]
fn sizes_and_addresses() {
    for (text, bytes) in [("0", 0), ("17", 17), ("1KiB", 1024), ("256 MiB", 256 << 20), ("2GiB", 2 << 30), ("5B", 5)] {
        assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
    }
    for text in ["", "MiB", "1.5GiB", "-1", "+1", "1MB", "1 kib", "0x10", "18446744073709551616"] {
        assert!(text.parse::<Size>().is_err(), "{text}");
    }
    for size in [0, 1, 1023, 1024, 5 << 20, (1 << 40) + 1024] {
        assert_eq!(Size(size).to_string().parse(), Ok(Size(size)));
    }
    for text in ["127.0.0.1:8080", "localhost:0", "[::1]:65535", "node-1.example:1"] {
        assert!(text.parse::<ListenAddr>().is_ok(), "{text}");
    }
    for text in ["", ":1", "a", "a:", "a:65536", "::1:80", "[::g]:1", "http://a:1", "a b:1", "a:1/"] {
        assert!(text.parse::<ListenAddr>().is_err(), "{text}");
    }
}

#[test]
fn dev_passes_settings_on_unchanged() {
    let args =
        ["--durability=os", "--cache-size=64MiB", "--disk-reserve=1000B", "--log-level=debug", "--log-format=json"];
    assert_eq!(flags(&args).tuning.flags(), args);
    assert!(flags(&[]).tuning.flags().is_empty());
}
