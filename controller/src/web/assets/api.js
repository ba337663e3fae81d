// Asks the controller that served this page: calls, the session, and the stream of events.

const PATIENCE_MS = 8000;

/** A refusal, or no answer at all (status 0). */
export class Refusal extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** Calls a method of the control API. */
export const call = (method, request = {}) => ask("POST", method, request);

/** Who asks; refused with 401 when nobody in person does. Asked first: what nobody shows counts as a failed try elsewhere. */
export const session = () => ask("GET", "session");
export const signIn = (token) => ask("POST", "session", { token });
export const signOut = () => ask("DELETE", "session");

async function ask(verb, path, body) {
  let answer;
  try {
    answer = await fetch(`api/v1/${path}`, {
      method: verb,
      headers: { "content-type": "application/json", "fleetknock-request": "1" },
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "same-origin",
      cache: "no-store",
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
  } catch {
    throw new Refusal(0, "unavailable", "the controller does not answer");
  }
  const content = await answer.json().catch(() => undefined);
  if (!answer.ok) {
    throw new Refusal(answer.status, content?.code ?? "unknown", content?.message ?? `the controller answers ${answer.status}`);
  }
  return content ?? {};
}

/** Everything of a paged list, up to `most`. */
export async function list(method, field, request = {}, most = 1000) {
  const whole = { [field]: [], unanswered: [], more: false };
  let pageToken = "";
  do {
    const page = await call(method, { ...request, pageSize: Math.min(1000, most), pageToken });
    whole[field].push(...(page[field] ?? []));
    whole.unanswered = page.unanswered ?? [];
    pageToken = page.nextPageToken ?? "";
  } while (pageToken && whole[field].length < most);
  whole.more = pageToken !== "";
  return whole;
}

/** The events from now on. `onEnd` is told once, when the stream cannot be had or breaks; the caller tries again. */
export function watch({ onOpen, onEvent, onEnd }) {
  const source = new EventSource("api/v1/WatchEvents");
  source.onopen = onOpen;
  source.onmessage = ({ data }) => {
    try {
      onEvent(JSON.parse(data));
    } catch {
      // Half an event is none.
    }
  };
  source.onerror = () => {
    source.close();
    onEnd();
  };
  return () => source.close();
}
