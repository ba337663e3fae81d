//! What is a traceparent, and what becomes of spans.

use super::*;

#[test]
fn a_traceparent_is_read_strictly_and_written_as_it_is_read() {
    let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let context: Context = text.parse().unwrap();
    assert_eq!((context.to_string().as_str(), context.trace_id().as_str()), (text, &text[3..35]));
    let other = context.sibling();
    assert_eq!(other.trace_id(), context.trace_id());
    assert_ne!(other.to_string(), text);
    assert_eq!(Context::random().to_string().parse::<Context>().map(drop), Ok(()));
    for wrong in [
        "",
        "00-0AF7651916CD43DD8448EB211C80319C-B7AD6B7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-extra",
        "00-0af7651916cd43dd8448eb211c80319cb-7ad6b7169203331-01",
        "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319\u{e9}-b7ad6b716920333-01",
    ] {
        assert_eq!(wrong.parse::<Context>(), Err(NoContext), "{wrong}");
    }
}

#[test]
fn without_a_collector_nothing_is_kept_and_with_one_the_queue_is_bounded() {
    let now = SystemTime::now();
    let off = Traces::default();
    off.add(Span::root("a", Context::random(), now, now));
    assert!(!off.is_on() && off.tracer().is_none());

    let (on, mut waiting) = Traces::new();
    let root = Span::root("a", Context::random(), now, now - Duration::from_secs(1)).failed("why");
    let child = Span::beneath(root.context(), "b", now, now).with("key", 7_i64);
    let (root_context, child_context) = (root.context(), child.context());
    on.add(root);
    on.add(child);
    let (root, child) = (waiting.0.try_recv().unwrap(), waiting.0.try_recv().unwrap());
    assert_eq!(root.end_time, root.start_time, "nothing ends before it began");
    assert_eq!(root.status, Status::error("why"));
    assert_eq!((root.span_context.span_id(), root.parent_span_id), (root_context.span, SpanId::INVALID));
    assert_eq!((child.span_context.span_id(), child.parent_span_id), (child_context.span, root_context.span));
    assert_eq!(child.span_context.trace_id(), root.span_context.trace_id());
    for _ in 0..QUEUE + 5 {
        on.add(Span::root("a", Context::random(), now, now));
    }
    assert_eq!(on.0.unwrap().dropped.get(), 5);
}
