//! `fleetknock token`: makes, lists and revokes tokens; and `fleetknock enroll-token`, which makes a host's.

use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use fleetknock_core::{
    host::HostName,
    identity::{Role, UserName},
    time::Timestamp,
};
use fleetknock_proto::{
    convert, limits,
    v1::{self, create_token_request::Holder},
};

use crate::{
    args::time,
    controllers::Controllers,
    get::pages,
    output::{Format, Out, remaining},
    resource::{Resource as _, token_holder},
};

/// Make, list and revoke tokens, with which users call the controllers in place of a certificate
///
/// For pipelines and for whoever has no certificate. Only a hash of a token is kept; it is shown once, when it is made.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fleetknock token create --user ci@example.com --role operator --for 7d > ci.token
  fleetknock token list
  fleetknock token revoke 5f0c2b7a91d3e684")]
pub(crate) struct Token {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Create(Create),
    List(List),
    Revoke(Revoke),
}

/// Make a token for a user
///
/// Standard output is the token and nothing else. Its holder keeps it in a file that nobody else can read, and gives it
/// with --token-file or in the environment variable FLEETKNOCK_TOKEN.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  (umask 077; fleetknock token create --user alice --role viewer > alice.token)
  fleetknock token create --user ci@example.com --role operator --for 7d -o json
  fleetknock get doors --controller https://10.0.0.1:7600 --tls-ca ca.crt --token-file alice.token")]
struct Create {
    /// Whose it is, as the audit trail names it
    #[arg(long, value_name = "NAME")]
    user: UserName,
    /// What it may do: viewer, operator or admin; at most what you may
    #[arg(long)]
    role: Role,
    /// How long it is good, 1m to 365d [default: 30d]
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    duration: Option<Duration>,
    /// How to write it
    #[arg(short, long, value_enum, default_value_t)]
    output: Written,
}

/// List the tokens that are good, of users and hosts
///
/// Their secrets are not known to anybody but their holders.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fleetknock token list
  fleetknock token list -o json")]
struct List {
    /// How to write it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Make tokens worthless at once, on all controllers
///
/// What their holders watch ends as well.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  fleetknock token revoke 5f0c2b7a91d3e684")]
struct Revoke {
    /// Which ones: the 16 digits that 'fleetknock token list' shows, not the tokens themselves
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

/// Make a token with which one host's agent gets its first certificate
///
/// It is good once and for a short time. Standard output is the token and nothing else.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  (umask 077; fleetknock enroll-token --host db-1 > db-1.token)
  fleetknock enroll-token --host db-1 --for 24h -o json")]
pub(crate) struct EnrollToken {
    /// For which host
    #[arg(long, value_name = "NAME")]
    host: HostName,
    /// How long it is good, 1m to 7d [default: 1h]
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    duration: Option<Duration>,
    /// How to write it
    #[arg(short, long, value_enum, default_value_t)]
    output: Written,
}

/// How a new token is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Written {
    /// The token and nothing else
    #[default]
    Secret,
    /// JSON, with the token as status.secret
    Json,
}

pub(crate) async fn run(command: &Token, controllers: &Controllers, out: &mut Out) -> anyhow::Result<()> {
    match &command.what {
        What::Create(create) => {
            let user =
                v1::TokenUser { name: create.user.to_string(), role: v1::Role::from(create.role).into() };
            let hint = "keep it in a file that only its holder can read, and give that as --token-file";
            make(Holder::User(user), create.duration, create.output, hint, controllers, out).await
        }
        What::List(list) => {
            let page_size = limits::PAGE_MAX as u32;
            let tokens = pages(async |page_token| {
                let request = v1::ListTokensRequest { page_size, page_token };
                let page =
                    controllers.read(async |mut client| client.list_tokens(request.clone()).await).await?;
                Ok((page.tokens, page.next_page_token))
            });
            Ok(out.list(list.output, &tokens.await?)?)
        }
        What::Revoke(revoke) => {
            for id in &revoke.ids {
                let request = v1::RevokeTokenRequest { id: id.clone() };
                controllers.write(async |mut client| client.revoke_token(request.clone()).await).await?;
                out.line(format!("token/{id} revoked"))?;
            }
            Ok(())
        }
    }
}

/// `fleetknock enroll-token`.
pub(crate) async fn enroll(
    command: &EnrollToken,
    controllers: &Controllers,
    out: &mut Out,
) -> anyhow::Result<()> {
    let hint = "give it to the agent of that host, which gets its certificate with it";
    let holder = Holder::Host(command.host.to_string());
    make(holder, command.duration, command.output, hint, controllers, out).await
}

async fn make(
    holder: Holder,
    duration: Option<Duration>,
    output: Written,
    hint: &str,
    controllers: &Controllers,
    out: &mut Out,
) -> anyhow::Result<()> {
    let valid_for_ms = duration.map_or(0, convert::millis);
    let request = v1::CreateTokenRequest { holder: Some(holder), valid_for_ms };
    let made = controllers.write(async |mut client| client.create_token(request.clone()).await).await?;
    let token = made.token.context("the controller told nothing of the token that it made")?;
    match output {
        Written::Json => {
            let mut document = token.document();
            document["status"]["secret"] = made.secret.into();
            out.raw(&format!("{document:#}\n"))?;
        }
        Written::Secret => {
            out.line(&made.secret)?;
            let left = remaining(Timestamp::from_millis(token.expires_ms), out.now());
            let holder = token_holder(&token);
            out.remark(format!(
                "token {} for {holder}, good for {left}, is shown this once: {hint}",
                token.id
            ))?;
        }
    }
    Ok(())
}
