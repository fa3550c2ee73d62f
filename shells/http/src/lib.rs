//! The HTTP side that `cereus coordinator` and `cereus local` share: connections and their limits,
//! the routes of the API, bodies, replies, error envelopes, request ids and CORS.
//!
//! A server implements [`Backend`] and gives [`routes`] those of its own; [`serve`] runs them on a
//! listener. Nothing here knows a model, an account or a price.

mod aside;
mod body;
#[cfg(feature = "contract")]
pub mod contract;
mod door;
mod linger;
mod listen;
mod metrics;
mod origin;
mod peer;
mod phase;
mod reply;
mod routes;
mod server;
mod target;
mod timed;

pub use self::aside::aside;
pub use self::body::Kept;
pub use self::door::{GRACE, Guest, Proxies, Room, SentAway};
pub use self::listen::cannot_listen;
pub use self::metrics::metrics;
pub use self::origin::{Names, OriginRule};
pub use self::peer::Peer;
pub use self::reply::{Failed, Pieces, Reply, bytes, complaint, events, json};
pub use self::routes::{Backend, Call, Endpoint, RequestTag, routes, shown_key};
pub use self::server::{Connections, HttpLimits, serve};

pub use axum;
