//! A stream says why it ends to whoever reads on, and does not wait for whoever does not.

use tokio_stream::StreamExt as _;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_reader_that_comes_back_hears_why() {
    let (queue, messages) = mpsc::channel(2);
    let (mut told, end) = Told::new(messages);
    queue.send(Ok(1)).await.unwrap();
    drop(queue);
    let saying = tokio::spawn(async move { end.say(Some(Status::aborted("too slow")), None).await });
    assert_eq!(told.next().await.unwrap().unwrap(), 1);
    assert_eq!(told.next().await.unwrap().unwrap_err().message(), "too slow");
    assert!(told.next().await.is_none());
    drop(told);
    assert!(!saying.await.unwrap(), "who took it is not cut off");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_never_does_is_not_waited_for() {
    let (queue, messages) = mpsc::channel(2);
    let (told, end) = Told::new(messages);
    queue.send(Ok(1)).await.unwrap();
    drop(queue);
    assert!(end.say(Some(Status::aborted("too slow")), None).await);
    drop(told);
}

#[tokio::test(start_paused = true)]
async fn without_a_reason_it_just_ends() {
    let (queue, messages) = mpsc::channel::<Result<u32, Status>>(2);
    let (mut told, end) = Told::new(messages);
    drop(queue);
    let saying = tokio::spawn(async move { end.say(None, None).await });
    assert!(told.next().await.is_none());
    drop(told);
    assert!(!saying.await.unwrap());
}
