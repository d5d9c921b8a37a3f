//! The checks of an engine: what it promises, and whether it does what channels need.

use std::time::Duration;

use anyhow::Result;
use tidewire::clock::Stopwatch;
use tidewire::{Channel, Error, ErrorKind, Event, Item, Receipt, Retention, Subscription, Tidewire};
use tidewire_server::config::{Config, DEFAULT_TENANT};

use super::{Finding, Report};

/// For an event to come back to where it was sent from.
const ARRIVES_WITHIN: Duration = Duration::from_secs(5);
const CLOSES_WITHIN: Duration = Duration::from_secs(5);
/// What the check appends is gone after this time.
const KEPT_FOR: Duration = Duration::from_secs(60);
const EVENT_TYPE: &str = "tidewire.doctor";

/// Checks the engine that `settings` name, on a channel that nobody else uses.
pub(super) async fn check(settings: &Config, report: &mut Report) -> Result<()> {
    let watch = Stopwatch::start();
    let opening = Tidewire::builder(settings.engine.expose()).environment(&settings.environment).open().await;
    let tidewire = match opening {
        Ok(tidewire) => tidewire,
        Err(error) => return report.add(&Finding::fail("open", error.to_string(), fix_of(&error))),
    };
    report.add(&Finding::ok("open", format!("{} in {}", settings.engine, took(&watch))))?;
    promises(&tidewire, report).await?;
    for finding in tidewire.examine().await.unwrap_or_default() {
        report.add(&Finding::from(finding))?;
    }
    round_trips(&tidewire, report).await?;
    report.add(&match tidewire.close(CLOSES_WITHIN).await {
        Ok(()) => Finding::ok("close", "nothing left running"),
        Err(error) => Finding::fail("close", error.to_string(), fix_of(&error)),
    })
}

/// The links, and what the engine says of itself.
async fn promises(tidewire: &Tidewire, report: &mut Report) -> Result<()> {
    let health = tidewire.health().await;
    for link in health.links {
        report.add(&match link.outcome {
            Ok(time) => Finding::ok("link", format!("{}: round trip {}", link.link, millis(time))),
            Err(problem) if !link.is_needed => Finding::warn(
                "link",
                format!("{}: {problem}", link.link),
                "start what is behind this link: while others like it answer, the engine does without",
            ),
            Err(problem) => Finding::fail(
                "link",
                format!("{}: {problem}", link.link),
                "start what is behind this link, or correct the engine's URL",
            ),
        })?;
    }
    report.add(&match health.is_durable {
        true => Finding::ok("durable", "confirmed appends survive a restart of the process"),
        false => Finding::warn(
            "durable",
            "everything kept is gone when the process ends",
            "--engine file:DIR keeps it, with nothing to install",
        ),
    })?;
    report.add(&match health.is_shared {
        true => Finding::ok("shared", "several nodes can serve the same tenants"),
        false => {
            Finding::ok("shared", "one node only; several nodes need an engine that is a server of its own")
        }
    })
}

/// Publishes, appends and reads on a channel with a name that is used once.
async fn round_trips(tidewire: &Tidewire, report: &mut Report) -> Result<()> {
    let name = format!("tidewire-doctor:{}", tidewire.node());
    let listening = async {
        let channel = tidewire.tenant(DEFAULT_TENANT)?.channel(&name)?;
        let subscription = channel.subscribe().open().await?;
        Ok::<_, Error>((channel, subscription))
    };
    let (channel, mut subscription) = match listening.await {
        Ok(listening) => listening,
        Err(error) => return report.add(&Finding::fail("subscribe", error.to_string(), fix_of(&error))),
    };
    report.add(&Finding::ok("subscribe", format!("channel {name:?} of tenant {DEFAULT_TENANT:?}")))?;

    let watch = Stopwatch::start();
    let published = published(&channel, &mut subscription).await;
    report.add(&finding("publish", published.map(|()| format!("received after {}", took(&watch)))))?;

    let watch = Stopwatch::start();
    let receipt = match appended(&channel, &mut subscription).await {
        Ok(receipt) => receipt,
        Err(trouble) => return report.add(&finding("append", Err(trouble))),
    };
    report.add(&Finding::ok("append", format!("confirmed and announced after {}", took(&watch))))?;

    let repeated = repeated(&channel, &receipt).await;
    report
        .add(&finding("deduplicate", repeated.map(|()| "a repeated append has no second effect".into())))?;
    let read = read(&channel, &receipt).await;
    report.add(&finding("read", read.map(|()| "the stream holds what was confirmed, once".into())))
}

/// What went wrong in a round trip.
enum Trouble {
    Error(Error),
    /// The engine answered, and not with what it must.
    Broken(String),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

async fn published(channel: &Channel, subscription: &mut Subscription) -> Result<(), Trouble> {
    channel.publish(Event::new(EVENT_TYPE, r#""published""#)).await?;
    arrival(subscription, r#""published""#).await
}

async fn appended(channel: &Channel, subscription: &mut Subscription) -> Result<Receipt, Trouble> {
    let receipt = append(channel).await?;
    arrival(subscription, r#""appended""#).await?;
    Ok(receipt)
}

async fn append(channel: &Channel) -> tidewire::Result<Receipt> {
    let retention = Retention { events_max: Some(10), age_max: Some(KEPT_FOR), ..Retention::default() };
    let event = Event::new(EVENT_TYPE, r#""appended""#);
    channel.append(event).dedup("doctor").dedup_window(KEPT_FOR).retention(retention).await
}

async fn repeated(channel: &Channel, first: &Receipt) -> Result<(), Trouble> {
    let second = append(channel).await?;
    if second.is_duplicate() && second.position == first.position {
        return Ok(());
    }
    Err(Trouble::Broken("a repeated append was kept a second time".into()))
}

async fn read(channel: &Channel, receipt: &Receipt) -> Result<(), Trouble> {
    let history = channel.read().await?;
    let is_once = matches!(history.events.as_slice(), [only] if only.position == receipt.position);
    if is_once {
        return Ok(());
    }
    Err(Trouble::Broken(format!("the stream holds {} events in place of one", history.events.len())))
}

/// Waits for an event with this data.
async fn arrival(subscription: &mut Subscription, data: &str) -> Result<(), Trouble> {
    let arrives = async {
        loop {
            match subscription.next().await {
                Some(Item::Event(received)) if received.event.data() == data.as_bytes() => return Ok(()),
                Some(Item::Event(_)) => {}
                Some(Item::Gap(gap)) => return Err(Trouble::Broken(format!("gap: {}", gap.reason))),
                None => return Err(Trouble::Broken("the subscription ended".into())),
            }
        }
    };
    tokio::time::timeout(ARRIVES_WITHIN, arrives).await.unwrap_or_else(|_| {
        Err(Trouble::Broken(format!("confirmed, but not received within {ARRIVES_WITHIN:?}")))
    })
}

fn finding(check: &str, outcome: Result<String, Trouble>) -> Finding {
    match outcome {
        Ok(found) => Finding::ok(check, found),
        Err(Trouble::Error(error)) => Finding::fail(check, error.to_string(), fix_of(&error)),
        Err(Trouble::Broken(found)) => {
            Finding::fail(check, found, "the engine breaks a guarantee: report it with this output")
        }
    }
}

/// What an operator can do about an error of the engine.
fn fix_of(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::InvalidName => "correct the engine's URL",
        ErrorKind::Conflict => {
            "another process holds it: stop that one, or check it while it runs, with `tidewire doctor --url`"
        }
        ErrorKind::Unavailable => "start the engine's server, or correct host and port in the URL",
        ErrorKind::TimedOut | ErrorKind::Backpressure => "see what keeps the engine's server or disk busy",
        _ => "the text before says what the engine refuses; change that and check again",
    }
}

fn took(watch: &Stopwatch) -> String {
    millis(watch.elapsed())
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}
