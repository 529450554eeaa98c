//! Config texts in, errors and values out.

use std::ffi::OsString;

use super::*;

fn load(text: &str) -> Result<Config, String> {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("relay.toml");
    fs::write(&path, text).expect("writes");
    let source = ConfigSource::at(Some(path.clone()));
    let var = |name: &str| (name == "SECRET").then(|| OsString::from("It's a Secret to Everybody"));
    let place = path.display().to_string();
    source.load_with(&var).map_err(|errors| errors.to_string().replace(&place, "relay.toml"))
}

const GOOD: &str = r#"version = 1
[server]
listen = "127.0.0.1:0"
[[endpoint]]
name = "github"
verify = { provider = "github", secrets = ["env:SECRET"] }
[[token]]
name = "laptop"
sha256 = ["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"]
endpoints = ["github"]
"#;

#[test]
fn a_good_config_loads_with_the_providers_deadline() {
    let config = load(GOOD).expect("loads");
    assert_eq!(config.endpoints.len(), 1);
    assert_eq!(config.endpoints[0].deadline.as_secs(), 9);
    assert_eq!(config.tokens.len(), 1);
}

#[test]
fn what_others_may_change_is_refused_or_named() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().expect("a directory");
    let put = |name: &str, text: &str, mode: u32| {
        let path = directory.path().join(name);
        fs::write(&path, text).expect("writes");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode");
    };
    let state = directory.path().join("state");
    fs::create_dir(&state).expect("a directory");
    let load = |mode: u32| {
        fs::set_permissions(&state, fs::Permissions::from_mode(mode)).expect("its mode");
        let source = ConfigSource::at(Some(directory.path().join("relay.toml")));
        let config = source.load_with(&|_| None).map_err(|errors| errors.to_string())?;
        Ok::<_, String>(config.warnings.iter().map(|warning| format!("{warning}\n")).collect::<String>())
    };
    let text = GOOD.replace("listen =", "state_dir = \"state\"\nlisten =").replace("env:SECRET", "file:secret");
    put("relay.toml", &text, 0o600);
    put("secret", "It's a Secret to Everybody", 0o600);
    assert_eq!(load(0o700), Ok(String::new()));
    for mode in [0o777, 0o1777, 0o702] {
        let error = load(mode).expect_err("everybody may write there");
        assert!(error.contains("server.state_dir: everybody on this machine may change"), "{error}");
        assert!(error.contains("chmod go-w"), "{error}");
    }
    let warnings = load(0o770).expect("loads");
    assert!(warnings.contains("server.state_dir: the group of"), "{warnings}");
    put("secret", "It's a Secret to Everybody", 0o620);
    let warnings = load(0o700).expect("loads");
    assert!(warnings.contains("file:secret: the group of") && warnings.contains("chmod g-w"), "{warnings}");
}

#[test]
fn a_token_that_no_agent_can_show_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("relay.toml");
    let hash = "sha256 = [\"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\"]";
    fs::write(&path, GOOD.replace(hash, "secrets = [\"env:TOKEN\"]")).expect("writes");
    let load = |token: &str| {
        let source = ConfigSource::at(Some(path.clone()));
        source.load_with(&|_| Some(OsString::from(token))).map(drop).map_err(|errors| errors.to_string())
    };
    let token = "rt_0123456789abcdefghijklmnopqrstuvwxyz";
    assert_eq!(load(token), Ok(()));
    for wrong in [format!("{token}\t"), format!(" {token}"), format!("{token}\n\n"), token.replace('a', "ä")] {
        let error = load(&wrong).expect_err("it cannot stand in a header");
        assert!(error.contains("token.laptop.secrets: env:TOKEN holds a space"), "{error}");
        assert!(!error.contains("rt_"), "{error}");
    }
}

#[test]
fn a_start_and_a_check_warn_while_strangers_may_teach_a_secret() {
    let warnings = |provider: &str, more: &str| {
        let rule = format!("provider = \"{provider}\"{more}");
        let config = load(&GOOD.replacen("provider = \"github\"", &rule, 1)).expect("loads");
        config.warnings.iter().map(ToString::to_string).filter(|text| text.contains("teaches")).collect::<Vec<_>>()
    };
    for provider in ["asana", "notion"] {
        let warnings = warnings(provider, ", allow_unsigned_challenge = true");
        assert!(warnings.len() == 1 && warnings[0].contains("relay.toml:6"), "{provider}: {warnings:?}");
    }
    assert!(warnings("asana", "").is_empty() && warnings("x", ", allow_unsigned_challenge = true").is_empty());
}

#[test]
fn what_is_shown_of_keeping_can_be_typed() {
    let keys = "mode = \"durable\"\nresign = \"never\"\norder = { key = \"json:/a\" }\ndedup_key = \"header:x-id\"\n\
        rate = \"600/min, burst 20\"\nconcurrency = 8\nmax_size = \"2GiB\"\nupgrades = [\"example/2\"]\non_failure = \"pass\"\nmethods = [\"POST\"]\nack = { status = 202, body = \"{}\" }\n\
        retry = { first = \"2s\", attempts = 3, retry_on = [429, \"5xx\"], give_up_on = [] }\n";
    let typed = GOOD.replacen("name = \"github\"\n", &format!("name = \"github\"\n{keys}"), 1);
    let show = |text: &str| {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("relay.toml");
        fs::write(&path, text).expect("writes");
        let shown = ConfigSource::at(Some(path.clone())).show().expect("a good config");
        let text = shown.to_toml().replace(&directory.path().display().to_string(), "/here");
        assert!(text.contains("version = 1  # relay.toml:1\n"), "{text}");
        let lines = text.lines().map(|line| line.split("  # ").next().unwrap_or_default().to_owned() + "\n");
        (lines.collect::<String>(), text)
    };
    let (first, sources) = show(&typed);
    assert!(sources.contains("deadline = \"9s\"  # from the provider's row\n"), "{sources}");
    assert!(sources.contains("drain_timeout = \"25s\"  # default\n"), "{sources}");
    assert!(first.contains("dedup_key = \"header:x-id\"") && first.contains("\"5xx\""), "{first}");
    assert!(first.contains("rate = \"600/min, burst 20\"\n") && first.contains("concurrency = 8\n"), "{first}");
    assert!(first.contains("max_size = \"2GiB\"\n") && first.contains("max_size = \"10GiB\"\n"), "{first}");
    assert!(first.contains("upgrades = [\"example/2\"]\n"), "{first}");
    // A token shows the beginnings of its hashes only.
    let (head, token) = typed.split_once("[[token]]").expect("a token");
    assert!(head.contains("durable"));
    let again = first.split_once("[[token]]").expect("a token").0.to_owned() + "[[token]]" + token;
    assert_eq!(show(&again).0, first);
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    for (from, to, expected) in [
        ("env:SECRET", "env:MISSING", "relay.toml:6"),
        ("listen =", "lisen =", "relay.toml:3"),
        ("provider = \"github\"", "provider = \"githb\"", "relay.toml:6"),
        ("name = \"github\"", "name = \"GitHub\"", "relay.toml:5"),
        ("name = \"github\"", "name = \"github\"\nmode = \"asured\"", "relay.toml:6"),
        (
            "name = \"github\"",
            "name = \"github\"\nrate = \"fast\"",
            "relay.toml:6: endpoint.github.rate: \"fast\" is not a rate; write it like \"50/s\", \"600/min\"",
        ),
        (
            "name = \"github\"",
            "name = \"github\"\nconcurrency = 0",
            "relay.toml:6: endpoint.github.concurrency: 0 is out of bounds; from 1 to 100000 is allowed",
        ),
        (
            "name = \"github\"",
            "name = \"github\"\nupgrades = [\"h2c\"]",
            "relay.toml:6: endpoint.github.upgrades: \"h2c\" is never passed",
        ),
        (
            "verify = { provider = \"github\", secrets = [\"env:SECRET\"] }",
            "verify = 3",
            "relay.toml:6: endpoint.github.verify: this is not a verify rule; set verify = { provider",
        ),
    ] {
        let errors = load(&GOOD.replacen(from, to, 1)).expect_err("refused");
        assert!(errors.contains(expected), "{to}: {errors}");
    }
    let unsigned = load(&GOOD.replace("[\"env:SECRET\"]", "[]")).expect_err("refused");
    assert!(unsigned.contains("secret"), "{unsigned}");
    let nobody = load(GOOD.split("[[token]]").next().expect("text")).expect("the admin's token makes others");
    assert!(nobody.warnings.iter().any(|warning| warning.to_string().contains("token create")));
}

#[test]
fn the_pages_host_is_its_own_and_there_is_tls() {
    let with = |lines: &str| load(&GOOD.replacen("listen =", &format!("{lines}\nlisten ="), 1));
    let proxy = "trusted_proxies = [\"10.0.0.0/8\"]\n";
    let config = with(&format!("{proxy}inspector_host = \"Inspect.Example\"")).expect("loads");
    assert_eq!(config.server.inspector_host.as_deref(), Some("inspect.example"));
    let plain = with("inspector_host = \"inspect.example\"").expect_err("refused");
    assert!(
        plain.contains("relay.toml:3: server.inspector_host: a browser keeps the page's cookie over TLS"),
        "{plain}"
    );
    for (lines, expected) in [
        ("inspector_host = \"localhost\"", "is shared with whatever else runs there"),
        ("inspector_host = \"127.0.0.1\"", "is shared with whatever else runs there"),
        ("inspector_host = \"a.example\"\npublic_url = \"https://a.example:8443\"", "server.public_url"),
    ] {
        let errors = with(&format!("{proxy}{lines}")).expect_err("refused");
        assert!(errors.contains(expected), "{lines}: {errors}");
    }
    let host = GOOD.replacen("name = \"github\"", "name = \"github\"\nhosts = [\"a.example\"]", 1);
    let both = host.replacen("listen =", &format!("{proxy}inspector_host = \"a.example\"\nlisten ="), 1);
    let errors = load(&both).expect_err("refused");
    assert!(errors.contains("\"a.example\" leads to the endpoint \"github\""), "{errors}");
}

#[test]
fn one_address_has_half_of_few_connections_and_its_share_of_many() {
    let with = |keys: &str| load(&GOOD.replace("listen =", &format!("{keys}\nlisten =")));
    for (keys, share) in [
        ("", 500),
        ("max_connections = 7", 4),
        ("max_connections = 1", 1),
        ("max_connections = 100\nmax_connections_per_address = 90", 90),
    ] {
        let server = with(keys).expect("loads").server;
        assert_eq!(server.max_connections_per_address, share, "{keys}");
    }
    let error = with("max_connections_per_address = 0").expect_err("nobody could come");
    assert!(error.contains("server.max_connections_per_address: 0 is out of bounds"), "{error}");
    let limits = load(&format!("{GOOD}[limits]\nupgrade_idle_timeout = \"500ms\"\n")).expect_err("too short");
    assert!(limits.contains("limits.upgrade_idle_timeout"), "{limits}");
}

#[test]
fn a_body_may_be_larger_than_memory_where_it_is_not_read_as_a_whole() {
    let with = |keys: &str, more: &str| {
        let keys = format!("name = \"github\"\nmax_body = \"1GiB\"\n{keys}");
        load(&format!("{}{more}", GOOD.replacen("name = \"github\"", &keys, 1)))
    };
    assert_eq!(with("", "").expect("loads").endpoints[0].max_body, 1 << 30);
    assert!(with("dedup = \"body\"\norder = { key = \"header:x-key\" }", "").is_ok(), "its hash is made as it comes");
    let stripe = GOOD
        .replacen("\"github\"", "\"github\"\nmax_body = \"300MiB\"", 1)
        .replace("{ provider = \"github\"", "{ provider = \"stripe\"");
    for (refused, why) in [
        (with("order = { key = \"json:/id\" }", ""), "something is looked for"),
        (load(&stripe), "something is looked for"),
        (with("", "[store]\nurl = \"memory:\"\n"), "beside a store in memory"),
    ] {
        let refused = refused.expect_err("larger than limits.body_budget");
        assert!(refused.contains(why) && refused.contains("endpoint.github.max_body"), "{refused}");
    }
}

#[test]
fn an_endpoints_share_of_the_store_is_half_of_it_or_what_it_says() {
    let shares = |text: &str| -> Vec<(u64, bool)> {
        let config = load(text).expect("loads");
        let of = |endpoint: &Arc<Endpoint>| (endpoint.policy.as_ref().expect("kept").max_bytes, endpoint.is_proven());
        config.endpoints.iter().map(of).collect()
    };
    let open = "[[endpoint]]\nname = \"open\"\nverify = \"none\"\n";
    let from = "[[endpoint]]\nname = \"from\"\nverify = \"none\"\nallow = [\"192.0.2.0/24\"]\n";
    let lenient = "[[endpoint]]\nname = \"eager\"\nverify = { provider = \"github\", secrets = [\"env:SECRET\"], enforce = false }\n";
    let store = "[store]\nmax_size = \"100MiB\"\n";
    let half = 50 << 20;
    assert_eq!(
        shares(&format!("{GOOD}{open}{from}{lenient}{store}")),
        [(half, true), (half, false), (half, true), (half, false)]
    );
    let with = |size: &str| GOOD.replacen("name = \"github\"", &format!("name = \"github\"\nmax_size = \"{size}\""), 1);
    assert_eq!(shares(&format!("{}{store}", with("100MiB"))), [(100 << 20, true)]);
    let refused = |text: &str| load(text).expect_err("refused");
    let why = refused(&format!("{}{store}", with("101MiB")));
    assert!(why.contains("max_size") && why.contains("100MiB"), "more than there is: {why}");
    let why = refused(&with("1MiB"));
    assert!(why.contains("would find no room"), "less than one body: {why}");
    let live = with("1GiB").replacen("max_size", "mode = \"live\"\nmax_size", 1);
    assert!(refused(&live).contains("a live endpoint keeps nothing"), "it would not be heeded");
}

/// The files of a certificate and of an authority, and a config with `[tls]` and these tables.
fn with_listeners(server: &str, tables: &str) -> String {
    let rows = "[[endpoint]]\nname = \"github\"\nverify = { provider = \"github\", secrets = [\"env:SECRET\"] }\n";
    let (_, token) = GOOD.split_once("[[token]]").expect("a token");
    format!("version = 1\n[server]\n{server}\n{tables}\n{rows}[[token]]{token}")
}

#[test]
fn listeners_say_what_is_done_to_their_connections() {
    let tables = "[[server.listen]]\naddr = \"127.0.0.1:443\"\n\
         [[server.listen]]\naddr = \"[::]:8080\"\ntls = false\nv6only = true\nproxy_protocol = \"v2\"\n\
         [[server.listen]]\naddr = \"unix:relay.sock\"\nmode = \"0600\"\nproxy_protocol = \"any\"\n\
         [[server.listen]]\naddr = \"fd:public\"\nclients = \"partners\"\n\
         [tls]\ncert = \"Cargo.toml\"\nkey = \"Cargo.toml\"\n\
         [[tls.clients]]\nname = \"partners\"\nca = \"ca.pem\"\nhosts = [\"A.test\"]\n";
    let here = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let text = with_listeners("trusted_proxies = [\"10.0.0.0/8\"]", tables).replace("Cargo.toml", here);
    let config = load(&text).expect("loads");
    let [tls, six, unix, inherited] = &config.server.listen[..] else { panic!("{:?}", config.server.listen) };
    assert!(tls.tls && tls.proxy_protocol == ProxyProtocol::Off && tls.clients.is_none());
    assert!(!six.tls && six.v6only && six.proxy_protocol == ProxyProtocol::V2);
    assert!(!unix.tls && unix.mode == 0o600 && unix.proxy_protocol == ProxyProtocol::Any);
    assert!(inherited.tls && inherited.clients.as_deref() == Some("partners"));
    let files = config.tls.expect("TLS").files;
    assert_eq!((files.certificates.len(), &*files.clients[0].hosts[0]), (1, "a.test"));
    let warnings = config.warnings.iter().map(ToString::to_string).collect::<String>();
    assert!(warnings.contains("[::]:8080 is reachable from outside without TLS"), "{warnings}");
    assert!(!warnings.contains("127.0.0.1:443"), "{warnings}");

    for (old, new, words) in [
        ("trusted_proxies = [\"10.0.0.0/8\"]", "", "proxy_protocol: whoever connects could say"),
        ("clients = \"partners\"", "clients = \"partner\"", "no clients are called \"partner\""),
        ("clients = \"partners\"", "clients = \"partners\"\ntls = false", "shown over TLS alone"),
        ("mode = \"0600\"", "v6only = true", "is no IPv6 address"),
        ("mode = \"0600\"", "mode = \"rw\"", "is not a file's mode"),
        ("v6only = true", "mode = \"0600\"", "is no file"),
        ("[::]:8080", "127.0.0.1:443", "is listened on twice"),
        ("\"any\"", "\"v3\"", "write \"off\", \"v1\", \"v2\" or \"any\""),
        ("addr = \"fd:public\"\n", "", "missing field `addr`"),
        ("addr = \"fd:public\"", "adr = \"fd:public\"", "unknown key \"adr\""),
    ] {
        let error = load(&text.replacen(old, new, 1)).expect_err(new);
        assert!(error.contains(words), "{new}: {error}");
    }
    let alone = with_listeners("", "[[server.listen]]\naddr = \"unix:relay.sock\"\n");
    let error = load(&alone).expect_err("nobody could come");
    assert!(error.contains("server.public_url: a unix socket is no address for senders"), "{error}");
    let none = with_listeners("listen = []", "");
    assert!(load(&none).expect_err("no listener").contains("there are 0 listeners"), "{none}");
}

#[test]
fn a_redirect_needs_an_address_that_it_leads_to() {
    let with = |keys: &str| load(&GOOD.replace("listen =", &format!("{keys}\nlisten =")));
    let listens = "http_listen = \"127.0.0.1:80\"";
    for public in ["", "public_url = \"http://relay.test\""] {
        let error = with(&format!("{listens}\n{public}")).expect_err("nowhere to go");
        assert!(error.contains("server.http_listen: it redirects to https"), "{error}");
    }
    let config = with(&format!("{listens}\npublic_url = \"https://relay.test\"")).expect("loads");
    assert_eq!(config.server.http_listen.map(|at| at.to_string()).as_deref(), Some("127.0.0.1:80"));
    let error = with("http_listen = \"unix:x.sock\"\npublic_url = \"https://relay.test\"").expect_err("no address");
    assert!(error.contains("who need an address"), "{error}");
}

#[test]
fn a_rule_for_certificates_names_clients_that_there_are() {
    let here = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let tls =
        format!("[tls]\ncert = \"{here}\"\nkey = \"{here}\"\n[[tls.clients]]\nname = \"partners\"\nca = \"{here}\"\n");
    let with = |rule: &str| {
        let rule = format!("client_certificate = {rule}\nverify =");
        load(&GOOD.replace("verify =", &rule).replace("[[endpoint]]", &format!("{tls}[[endpoint]]")))
    };
    let config = with("{ clients = \"partners\", names = [\"dns:Shop.test\"] }").expect("loads");
    let rule = config.endpoints[0].client.as_ref().expect("a rule");
    assert_eq!((&*rule.clients, rule.names.as_deref()), ("partners", Some(&["dns:shop.test".to_owned()][..])));
    assert!(with("{ clients = \"partners\" }").expect("loads").endpoints[0].client.is_some());
    for (rule, words) in [
        ("{ clients = \"partner\" }", "did you mean"),
        ("{ clients = \"partners\", names = [] }", "leave names out for all"),
        ("{ clients = \"partners\", names = [\"shop.test\"] }", "is not a certificate's name"),
        ("{ names = [\"dns:shop.test\"] }", "missing field `clients`"),
        ("{ clients = \"partners\", name = \"x\" }", "unknown key \"name\""),
    ] {
        let error = with(rule).expect_err(rule);
        assert!(error.contains(words), "{rule}: {error}");
    }
    let twice = format!("{tls}[[tls.clients]]\nname = \"partners\"\nca = \"{here}\"\n");
    let error = load(&GOOD.replace("[[endpoint]]", &format!("{twice}[[endpoint]]"))).expect_err("two with one name");
    assert!(error.contains("two with the name \"partners\""), "{error}");
}

#[test]
fn certificates_by_acme_are_said_with_a_domain_and_what_its_challenge_needs() {
    let with = |keys: &str| load(&format!("{GOOD}[tls]\nacme = {{ {keys} }}\n"));
    let config = with("domains = [\"Hooks.Example.com\", \"hooks.example.com\"], email = \"ops@example.com\"");
    let acme = config.expect("loads").tls.and_then(|tls| tls.acme).expect("acme");
    assert_eq!(acme.domains, ["hooks.example.com"]);
    assert_eq!(acme.directory, "https://acme-v02.api.letsencrypt.org/directory");
    let hook = "challenge = \"dns-01\", dns_hook = [\"/bin/sh\", \"hook\"]";
    let acme = with(&format!("domains = [\"*.example.com\"], {hook}")).expect("loads").tls.expect("tls").acme;
    assert_eq!(acme.expect("acme").dns_hook, ["/bin/sh", "hook"]);
    let eab = with("domains = [\"a.example\"], eab = { kid = \"1\", key = \"env:SECRET\" }").expect_err("refused");
    assert!(eab.contains("env:SECRET is not base64url") && !eab.contains("Everybody"), "{eab}");
    for (keys, expected) in [
        ("domains = []", "tls.acme.domains: no domain is named"),
        ("domains = [\"*.example.com\"]", "\"*.example.com\" can only be shown by dns-01, not by tls-alpn-01"),
        ("domains = [\"192.0.2.1\"]", "\"192.0.2.1\" is an address"),
        ("domains = [\"a b\"]", "is not a host name"),
        ("domains = [\"*.*.example.com\"], challenge = \"dns-01\"", "is not a host name"),
        ("domains = [\"a.example\"], challenge = \"dns-01\"", "dns-01 needs a program"),
        ("domains = [\"a.example\"], challenge = \"dns-02\"", "\"dns-02\" is not a challenge"),
        ("domains = [\"a.example\"], dns_hook = [\"x\"]", "it is for dns-01"),
        ("domains = [\"a.example\"], challenge = \"http-01\"", "server.http_listen"),
        ("domains = [\"a.example\"], challenge = \"dns-01\", dns_hook = [\"/no/such\"]", "/no/such is no file"),
        ("domains = [\"a.example\"], email = \"ops\"", "\"ops\" is not an address of e-mail"),
        ("domains = [\"a.example\"], directory = \"http://ca.example/dir\"", "not the https URL"),
        ("domains = [\"a.example\"], ca = \"/no/such.pem\"", "cannot read /no/such.pem"),
        ("domains = [\"a.example\"], eab = { kid = \"1\", key = \"hunter2\" }", "not a reference to a secret"),
        ("domains = [\"a.example\"], eab = { kid = \"1\" }", "missing field `key`"),
        ("domain = [\"a.example\"]", "domain"),
    ] {
        let errors = with(keys).map(|_| ()).expect_err("refused");
        assert!(errors.contains(expected) && !errors.contains("hunter2"), "{keys}: {errors}");
    }
    let warned = |config: Result<Config, String>| {
        config.expect("loads").warnings.iter().map(|warning| format!("{warning}\n")).collect::<String>()
    };
    let memory = load(&format!("{GOOD}[store]\nurl = \"memory:\"\n[tls]\nacme = {{ domains = [\"a.example\"] }}\n"));
    assert!(warned(memory).contains("forgets certificates"));
    let at = |url: &str| {
        let text = GOOD.replacen("listen =", &format!("public_url = \"{url}\"\nlisten ="), 1);
        warned(load(&format!("{text}[tls]\nacme = {{ domains = [\"a.example\", \"*.b.example\"], {hook} }}\n")))
    };
    assert!(at("https://c.example").contains("no certificate is ordered for c.example"));
    assert_eq!(at("https://a.example") + &at("https://x.b.example"), "");
}

#[test]
fn thousands_of_endpoints_are_checked_and_each_mistake_has_its_line() {
    const ENDPOINTS: usize = 2000;
    let row = |number: usize| {
        format!("[[endpoint]]\nname = \"{number:040}\"\nmode = \"durable\"\nverify = \"none\"\ndeadline = \"5s\"\n")
    };
    let text: String = std::iter::once(GOOD.to_owned()).chain((0..ENDPOINTS).map(row)).collect();
    let began = std::time::Instant::now();
    let config = load(&text).expect("loads");
    println!("{ENDPOINTS} endpoints are checked in {:?}", began.elapsed());
    assert_eq!(config.endpoints.len(), ENDPOINTS + 1);
    let error = load(&text.replacen("deadline = \"5s\"\n", "", ENDPOINTS - 1).replace("\"5s\"", "\"5 days\"")).err();
    let line = GOOD.lines().count() + 4 * (ENDPOINTS - 1) + 5;
    let error = error.expect("it is too long");
    assert!(error.starts_with(&format!("relay.toml:{line}: endpoint.{:040}.deadline: ", ENDPOINTS - 1)), "{error}");
}
