//! Sessions of the page: codes that open one, keys that stand for one, and the paths for both.
//!
//! All of it is in memory and ends with the relay. Of keys and codes only digests are kept. A session that a token opened
//! has that token's rights as they are at each question, and ends with the secret that it showed.
//!
//! Bounds: [`MAX_SESSIONS`] sessions, of which the one that was idle for longest makes room; [`MAX_CODES`] codes;
//! [`MAX_LOGINS`] logins of one address in a minute.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::{Path, State},
    http::{HeaderValue, header},
    response::Response,
};
use jiff::Timestamp;
use parking_lot::Mutex;
use relay_program::api::{SessionCode, SessionLogin, SessionMade};
use serde::Serialize;
use subtle::ConstantTimeEq as _;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::{
    Api, Mount,
    ask::{self, GivenBody},
    table::{Audited, Needs, Operation},
    who::{Who, WhoKind},
};
use crate::{
    agents::{
        auth_throttle::AuthThrottle,
        token::{AgentToken, Right, Shown, TokenHash, Tokens},
    },
    audit::{self, Actor, Deed},
    failure::{ApiError, ApiErrorKind},
    ingress::Client,
    store::AuditClass,
};

/// A session ends after so long without a question.
const IDLE: Duration = Duration::from_secs(12 * 3600);
/// It ends after so long in any case.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);
pub(crate) const MAX_SESSIONS: usize = 100;
/// A code is good for so long, once.
const CODE_LIFE: Duration = Duration::from_secs(60);
const MAX_CODES: usize = 100;
pub(crate) const MAX_LOGINS: u32 = 10;
pub(crate) const LOGINS_WINDOW: Duration = Duration::from_secs(60);

/// The cookie of a session, where there is one at all.
pub(crate) const COOKIE: &str = "__Host-relay";

pub(crate) struct PageSessions {
    open: Mutex<OpenSessions>,
    logins: AuthThrottle,
}

impl Default for PageSessions {
    fn default() -> Self {
        Self { open: Mutex::default(), logins: AuthThrottle::new(MAX_LOGINS, LOGINS_WINDOW) }
    }
}

#[derive(Default)]
struct OpenSessions {
    sessions: Vec<PageSession>,
    codes: Vec<LoginCode>,
    last_id: u64,
}

struct PageSession {
    id: u64,
    key: TokenHash,
    /// Whose rights it has; `None`: all.
    shown: Option<Shown>,
    opened_at: Timestamp,
    last_used: Timestamp,
}

struct LoginCode {
    code: TokenHash,
    /// `None`: until it is used.
    until: Option<Timestamp>,
}

impl PageSession {
    fn expires_at(&self) -> Timestamp {
        (self.last_used + IDLE).min(self.opened_at + LONGEST)
    }
}

/// A session that was opened: its number, its key, and when it ends at the latest.
pub(crate) struct OpenedSession {
    id: u64,
    key: AgentToken,
    expires_at: Timestamp,
}

impl PageSessions {
    /// A code that opens one session with all rights.
    pub(crate) fn code(&self, until: Option<Timestamp>) -> Result<AgentToken, ApiError> {
        let code = random("rc_")?;
        let mut state = self.open.lock();
        if state.codes.len() >= MAX_CODES {
            state.codes.remove(0);
        }
        state.codes.push(LoginCode { code: code.hash(), until });
        Ok(code)
    }

    /// Counts a login of an address.
    fn count(&self, address: IpAddr, now: Instant) -> Result<(), ApiError> {
        if let Some(left) = self.logins.wait(address, now) {
            let why = format!("more than {MAX_LOGINS} logins in a minute; wait");
            return Err(ApiError::new(ApiErrorKind::TooManyLogins { wait_s: left.as_secs().max(1) }, why));
        }
        self.logins.count(address, now);
        Ok(())
    }

    /// Whether a code is good; it is not from then on.
    fn redeem(&self, code: &str, now: Timestamp) -> bool {
        let (shown, mut state) = (TokenHash::of(code.as_bytes()), self.open.lock());
        state.codes.retain(|code| code.until.is_none_or(|until| now < until));
        let at = state.codes.iter().position(|one| one.code.0.ct_eq(&shown.0).into());
        at.map(|at| state.codes.remove(at)).is_some()
    }

    fn open(&self, shown: Option<Shown>, now: Timestamp) -> Result<OpenedSession, ApiError> {
        let key = random("rk_")?;
        let mut state = self.open.lock();
        state.sessions.retain(|session| now < session.expires_at());
        if state.sessions.len() >= MAX_SESSIONS {
            let idlest = state.sessions.iter().enumerate().min_by_key(|(_, session)| session.last_used);
            if let Some((at, _)) = idlest {
                state.sessions.remove(at);
            }
        }
        state.last_id += 1;
        let session = PageSession { id: state.last_id, key: key.hash(), shown, opened_at: now, last_used: now };
        let opened = OpenedSession { id: session.id, key, expires_at: session.opened_at + LONGEST };
        state.sessions.push(session);
        Ok(opened)
    }

    /// Who has a session with this key, by what the tokens allow now.
    pub(crate) fn who(&self, key: &[u8], tokens: &Tokens, now: Timestamp) -> Option<Who> {
        let (key, mut state) = (TokenHash::of(key), self.open.lock());
        state.sessions.retain(|session| now < session.expires_at());
        let at = state.sessions.iter().position(|session| session.key.0.ct_eq(&key.0).into())?;
        let token = match &state.sessions[at].shown {
            None => None,
            Some(shown) => match tokens.still(shown) {
                Some(token) => Some(token),
                None => {
                    state.sessions.remove(at);
                    return None;
                }
            },
        };
        let session = &mut state.sessions[at];
        session.last_used = now;
        Some(Who::session(session.id, token))
    }

    /// Whether a session has not ended. This is no use of it.
    pub(super) fn is_open(&self, id: u64, now: Timestamp) -> bool {
        self.open.lock().sessions.iter().any(|session| session.id == id && now < session.expires_at())
    }

    fn end(&self, id: u64) -> bool {
        let mut state = self.open.lock();
        let before = state.sessions.len();
        state.sessions.retain(|session| session.id != id);
        state.sessions.len() < before
    }

    fn list(&self, current: Option<u64>, tokens: &Tokens, now: Timestamp) -> Vec<SessionRow> {
        let mut state = self.open.lock();
        let good = |session: &PageSession| session.shown.as_ref().is_none_or(|shown| tokens.still(shown).is_some());
        state.sessions.retain(|session| now < session.expires_at() && good(session));
        let row = |session: &PageSession| SessionRow {
            id: session.id.to_string(),
            kind: if session.shown.is_some() { "token" } else { "admin" }.to_owned(),
            name: session.shown.as_ref().map_or("admin", |shown| &*shown.token.name).to_owned(),
            opened_at: session.opened_at.to_string(),
            last_used: session.last_used.to_string(),
            expires_at: session.expires_at().to_string(),
            current: current == Some(session.id),
        };
        state.sessions.iter().map(row).collect()
    }
}

fn random(prefix: &str) -> Result<AgentToken, ApiError> {
    AgentToken::random(prefix).map_err(|_| ApiError::new(ApiErrorKind::Internal, "no randomness"))
}

/// An open session of the page.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SessionRow {
    pub id: String,
    /// `admin` or `token`.
    pub kind: String,
    /// The token's name.
    pub name: String,
    pub opened_at: String,
    pub last_used: String,
    pub expires_at: String,
    /// Whether it is the asker's own.
    pub current: bool,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SessionList {
    pub sessions: Vec<SessionRow>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SessionEnded {
    pub id: String,
}

pub(super) fn operations() -> Vec<Operation> {
    let admin = Needs::Right(Right::Admin);
    vec![
        Operation::post("/sessions", Needs::Nobody, login)
            .says("Opens a session of the page, for a code or a token")
            .takes::<SessionLogin>()
            .answers::<SessionMade>(200)
            .audits(Audited::ByItself),
        Operation::post("/sessions/codes", admin, make_code)
            .says("A code that opens one session, within a minute; only the admin token gets one")
            .answers::<SessionCode>(200)
            .audits(Audited::As("session.code")),
        Operation::get("/sessions", admin, list).says("Open sessions of the page").answers::<SessionList>(200),
        Operation::delete("/sessions/current", Needs::Anybody, leave)
            .says("Ends the asker's own session")
            .answers::<SessionEnded>(200)
            .audits(Audited::As("session.leave")),
        Operation::delete("/sessions/{id}", admin, end)
            .says("Ends a session")
            .answers::<SessionEnded>(200)
            .audits(Audited::As("session.end")),
    ]
}

async fn login(
    State(api): State<Arc<Api>>,
    Extension(mount): Extension<Mount>,
    Extension(Client(address)): Extension<Client>,
    GivenBody(SessionLogin { code, token }): GivenBody<SessionLogin>,
) -> Result<Response, ApiError> {
    let now = api.services.delivery.clock.now();
    if !mount.sessions {
        return Err(ApiError::nothing_here());
    }
    let nobody = |result: &str| {
        let deed = Deed::new(Actor::nobody(address), "session.open", None);
        api.services.audit.note(AuditClass::Refused, deed, result);
    };
    api.sessions.count(address, Instant::now()).inspect_err(|_| nobody("too_many_logins"))?;
    let shown = match (code, token) {
        (Some(code), None) if api.sessions.redeem(&code, now) => None,
        (Some(_), None) => {
            nobody("unauthorized");
            let why = "this code is not good any more; make another: relay-server inspect";
            return Err(ApiError::new(ApiErrorKind::Unauthorized, why));
        }
        (None, Some(token)) if api.admin.0.ct_eq(&TokenHash::of(token.as_bytes()).0).into() => None,
        (None, Some(token)) => {
            let shown = api.services.routes.load().tokens.authenticate(token.as_bytes());
            let why = |why| {
                nobody("unauthorized");
                ApiError::new(ApiErrorKind::Unauthorized, why)
            };
            let shown = shown.ok_or_else(|| why("this token is not known here"))?;
            if shown.token.client.is_some() {
                return Err(why("this token counts only beside a client certificate, which a page does not show"));
            }
            Some(shown)
        }
        _ => return Err(ApiError::bad_request("give a code or a token")),
    };
    let who = Who::session(0, shown.as_ref().map(|shown| Arc::clone(&shown.token)));
    let rights = who.rights();
    let begun = api.services.audit.begin(Deed::new(who.actor(Some(address)), "session.open", None)).await?;
    let OpenedSession { id, key, expires_at } = api.sessions.open(shown, now)?;
    begun.end(audit::OK, Some(id.to_string()), None).await;
    let (id, expires_at) = (id.to_string(), expires_at.to_string());
    if !mount.cookie {
        return Ok(ask::ok(&SessionMade { id, key: key.expose().to_owned(), expires_at, rights }));
    }
    // A script has no business with it.
    let mut response = ask::ok(&SessionMade { id, key: String::new(), expires_at, rights });
    set_cookie(&mut response, key.expose(), LONGEST.as_secs());
    Ok(response)
}

fn set_cookie(response: &mut Response, key: &str, max_age_s: u64) {
    let cookie = format!("{COOKIE}={key}; Max-Age={max_age_s}; Path=/; Secure; HttpOnly; SameSite=Strict");
    if let Ok(mut cookie) = HeaderValue::try_from(cookie) {
        cookie.set_sensitive(true);
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
}

async fn make_code(State(api): State<Arc<Api>>, who: Who) -> Result<Response, ApiError> {
    if who.kind != WhoKind::Admin {
        return Err(ApiError::new(
            ApiErrorKind::MayNotAdmin,
            "only the admin token of the state directory makes codes",
        ));
    }
    let until = api.services.delivery.clock.now() + CODE_LIFE;
    let code = api.sessions.code(Some(until))?;
    Ok(ask::ok(&SessionCode { url: api.page_url(&code), code: code.expose().to_owned() }))
}

async fn list(State(api): State<Arc<Api>>, who: Who) -> Response {
    let (now, routes) = (api.services.delivery.clock.now(), api.services.routes.load());
    ask::ok(&SessionList { sessions: api.sessions.list(who.session, &routes.tokens, now) })
}

async fn leave(
    State(api): State<Arc<Api>>,
    Extension(mount): Extension<Mount>,
    who: Who,
) -> Result<Response, ApiError> {
    let id = who.session.filter(|id| api.sessions.end(*id));
    let id = id.ok_or_else(|| ApiError::not_found("whoever asks has no session"))?;
    let mut response = ask::ok(&SessionEnded { id: id.to_string() });
    if mount.cookie {
        set_cookie(&mut response, "", 0);
    }
    Ok(response)
}

async fn end(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let ended = id.parse().is_ok_and(|id| api.sessions.end(id));
    if ended { Ok(ask::ok(&SessionEnded { id })) } else { Err(ApiError::not_found("no session has this id")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).expect("a time")
    }

    fn key(sessions: &PageSessions, now: Timestamp) -> String {
        sessions.open(None, now).expect("opens").key.expose().to_owned()
    }

    #[test]
    fn a_code_is_good_once_and_for_a_minute() {
        let sessions = PageSessions::default();
        let code = sessions.code(Some(at(60))).expect("a code");
        assert!(!sessions.redeem("rc_other", at(1)));
        assert!(sessions.redeem(code.expose(), at(1)) && !sessions.redeem(code.expose(), at(1)));
        let late = sessions.code(Some(at(60))).expect("a code");
        assert!(!sessions.redeem(late.expose(), at(60)));
        let lasting = sessions.code(None).expect("a code");
        assert!(sessions.redeem(lasting.expose(), at(100_000)));
    }

    #[test]
    fn a_session_ends_after_twelve_idle_hours_and_after_seven_days() {
        let (sessions, tokens) = (PageSessions::default(), Tokens::default());
        let key = key(&sessions, at(0));
        let hour = |hour: i64| at(3600 * hour);
        assert!(sessions.who(key.as_bytes(), &tokens, hour(11)).is_some());
        assert!(sessions.who(b"rk_other", &tokens, hour(11)).is_none());
        for later in (22..168).step_by(11) {
            assert!(sessions.who(key.as_bytes(), &tokens, hour(later)).is_some(), "{later}");
        }
        assert!(sessions.who(key.as_bytes(), &tokens, hour(168)).is_none(), "seven days");
        let idle = self::key(&sessions, hour(200));
        assert!(sessions.who(idle.as_bytes(), &tokens, hour(212)).is_none());
    }

    #[test]
    fn the_idlest_of_a_hundred_sessions_makes_room() {
        let (sessions, tokens) = (PageSessions::default(), Tokens::default());
        let keys: Vec<_> = (0..100).map(|second| key(&sessions, at(second))).collect();
        assert!(sessions.who(keys[0].as_bytes(), &tokens, at(200)).is_some());
        key(&sessions, at(201));
        assert_eq!(sessions.list(None, &tokens, at(202)).len(), MAX_SESSIONS);
        assert!(sessions.who(keys[0].as_bytes(), &tokens, at(202)).is_some());
        assert!(sessions.who(keys[1].as_bytes(), &tokens, at(202)).is_none());
    }

    #[test]
    fn an_address_logs_in_ten_times_a_minute() {
        let (sessions, now) = (PageSessions::default(), Instant::now());
        let (one, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        for _ in 0..MAX_LOGINS {
            sessions.count(one, now).expect("one of ten");
        }
        assert!(sessions.count(one, now).is_err() && sessions.count(other, now).is_ok());
        assert!(sessions.count(one, now + LOGINS_WINDOW).is_ok());
        // A whole network of addresses shuts nobody out.
        for number in 0..20_000_u32 {
            let [a, b, c, d] = number.to_be_bytes();
            let address = [0x2001, 0xdb8, 1, u16::from_be_bytes([c, d]) ^ u16::from_be_bytes([a, b]), 0, 0, 0, 1];
            let _ = sessions.count(IpAddr::from(address), now);
        }
        assert!(sessions.count(other, now).is_ok());
    }

    #[test]
    fn a_session_ends_with_the_secret_that_opened_it() {
        let token = |secret: &str| crate::agents::token::Token {
            name: "laptop".into(),
            hashes: vec![TokenHash::of(secret.as_bytes())],
            endpoints: Vec::new(),
            rights: Vec::new(),
            max_sessions: 1,
            client: None,
            id: "tok_0".into(),
            quotas: Default::default(),
        };
        let (sessions, before, after) =
            (PageSessions::default(), Tokens::new(vec![token("one")]), Tokens::new(vec![token("two")]));
        let opened = sessions.open(before.authenticate(b"one"), at(0)).expect("opens");
        assert!(sessions.who(opened.key.expose().as_bytes(), &before, at(1)).is_some());
        assert!(sessions.who(opened.key.expose().as_bytes(), &after, at(2)).is_none());
        assert!(sessions.who(opened.key.expose().as_bytes(), &before, at(3)).is_none(), "for good");
    }
}
