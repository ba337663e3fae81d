//! Signals, vital tasks and grace.

use std::time::Duration;

use tokio::sync::mpsc;

use super::*;
use crate::exit;

const LONG: Duration = Duration::from_secs(600);

#[tokio::test(start_paused = true)]
async fn a_signal_drains_and_waits_for_the_work() {
    let drain = Drain::new();
    let (done, mut finished) = mpsc::channel(1);
    let watch = drain.clone();
    drain.spawn(async move {
        watch.started().await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        done.send(()).await.unwrap();
    });
    let (sender, signals) = signals();
    sender.send(Signal::Terminate).await.unwrap();
    drain.wait(signals, LONG).await.unwrap();
    assert!(finished.try_recv().is_ok(), "the drain did not wait for the task");
}

#[tokio::test(start_paused = true)]
async fn a_second_signal_aborts() {
    let drain = Drain::new();
    drain.spawn(std::future::pending());
    let (sender, signals) = signals();
    sender.send(Signal::Terminate).await.unwrap();
    sender.send(Signal::Interrupt).await.unwrap();
    let error = drain.wait(signals, LONG).await.unwrap_err();
    assert_eq!(error.exit_code(), 130);
    assert_eq!(DrainError::Aborted { signal: Signal::Terminate }.exit_code(), 143);
}

#[tokio::test(start_paused = true)]
async fn grace_has_an_end() {
    let drain = Drain::new();
    drain.spawn(std::future::pending());
    drain.start();
    let (_sender, signals) = signals();
    let error = drain.wait(signals, Duration::from_secs(10)).await.unwrap_err();
    assert!(matches!(error, DrainError::Grace { .. }), "{error}");
}

#[tokio::test]
async fn the_end_of_a_vital_task_ends_the_process_with_its_name() {
    for (how, said) in [
        (0, "the task 'capture' ended unexpectedly"),
        (1, "the task 'capture' failed: no socket"),
        (2, "the task 'capture' panicked"),
    ] {
        let drain = Drain::new();
        drain.spawn_vital("capture", async move {
            match how {
                0 => Ok(()),
                1 => Err(exit::coded(exit::NO_PERMISSION, anyhow::anyhow!("no socket"))),
                _ => panic!("on purpose"),
            }
        });
        let (_sender, signals) = signals();
        let error = drain.clone().wait(signals, LONG).await.unwrap_err();
        assert_eq!(error.to_string(), said);
        let code = if how == 1 { exit::NO_PERMISSION } else { exit::SOFTWARE };
        assert_eq!(error.exit_code(), code);
        assert!(drain.has_started());
    }
}

#[tokio::test]
async fn a_vital_task_may_end_while_draining() {
    let drain = Drain::new();
    let token = drain.token();
    drain.spawn_vital("link", async move {
        token.cancelled().await;
        Ok(())
    });
    let (sender, signals) = signals();
    sender.send(Signal::Interrupt).await.unwrap();
    drain.wait(signals, LONG).await.unwrap();
}

fn signals() -> (mpsc::Sender<Signal>, Signals) {
    let (sender, receiver) = mpsc::channel(2);
    (sender, Signals::from_channel(receiver))
}
