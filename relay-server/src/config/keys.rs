//! Every key that can be typed in `relay.toml`, table by table. `check` reads them.

pub(super) const MAIN: &str =
    "version include server tls store limits inspect audit telemetry log alert canary provider endpoint token";
/// What an included file may say.
pub(super) const ROWS: &str = "provider endpoint token";
pub(super) const SERVER: &str = "\
    listen http_listen admin admin_hosts inspector_host public_url state_dir trusted_proxies drain_timeout \
    workers max_connections max_connections_per_address sandbox";
pub(super) const LISTEN: &str = "addr tls proxy_protocol clients v6only mode";
pub(super) const TLS: &str = "cert key certificate clients acme";
pub(super) const CERTIFICATE: &str = "cert key";
pub(super) const CLIENTS: &str = "name ca crl hosts";
pub(super) const CLIENT_CERTIFICATE: &str = "clients names";
pub(super) const ACME: &str = "domains email directory ca challenge dns_hook eab";
pub(super) const EAB: &str = "kid key";
pub(super) const STORE: &str = "url max_size retention pending_retention";
pub(super) const LIMITS: &str = "\
    max_body max_head max_in_flight_per_agent max_sessions body_budget refused_budget journal_budget \
    header_timeout body_idle_timeout body_timeout idle_timeout upgrade_idle_timeout";
pub(super) const INSPECT: &str = "mask_headers mask_json";
pub(super) const AUDIT: &str = "retention max_size";
pub(super) const TELEMETRY: &str = "otlp headers sample service_name attributes";
pub(super) const LOG: &str = "access";
pub(super) const ALERT: &str = "url secret backlog certificate";
pub(super) const CANARY: &str = "every";
pub(super) const ENDPOINT: &str = "\
    name mode verify deadline idle_timeout max_body max_size hosts allow replay wait_for_agent attach upgrades journal \
    owner client_certificate rate concurrency attempt_timeout agent_grace on_failure methods dedup dedup_window dedup_key order \
    resign ack retry";
/// Those of an endpoint that only one which keeps events has.
pub(super) const STORED: &str = "\
    max_size attempt_timeout agent_grace on_failure methods dedup dedup_window dedup_key order resign ack retry";
pub(super) const ACK: &str = "status body content_type";
pub(super) const RETRY: &str = "schedule first factor longest attempts retry_on give_up_on";
pub(super) const VERIFY: &str = "\
    provider secrets enforce tolerance public_url settings jwks named_keys verify_token \
    allow_unsigned_challenge confirm";
pub(super) const TOKEN: &str = "\
    name sha256 secrets endpoints rights max_sessions max_endpoints max_stored max_events_per_day client_certificate";
