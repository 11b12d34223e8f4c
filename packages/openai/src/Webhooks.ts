/**
 * What OpenAI sends by itself: checked to be OpenAI's, and decoded.
 *
 * **Details**
 *
 * The scheme is Standard Webhooks (https://www.standardwebhooks.com): HMAC-SHA256 over
 * `webhook-id.webhook-timestamp.body`, one or several signatures in `webhook-signature`.
 *
 * **Gotchas**
 *
 * The body must be the very bytes that came: one that was parsed and written again has another signature. An
 * event may be sent more than once, and its `webhookId` is then the same. Without an answer of 2xx OpenAI sends it
 * again for three days.
 *
 * @example
 * ```ts
 * import { Webhooks } from "@llm/openai"
 * import { Effect, Redacted } from "effect"
 *
 * const answer = await Effect.runPromise(
 *   Webhooks.unwrap({
 *     body: `{"type":"response.completed"}`,
 *     headers: { "webhook-id": "wh_1", "webhook-timestamp": "1750861210", "webhook-signature": "v1,AAAA" },
 *     secret: Redacted.make("whsec_RdvaYFYUXuIFuEbvZHwMfYFhUf7aMYjYcmM24+Aj40c=")
 *   }).pipe(
 *     Effect.as(204),
 *     Effect.catchTag("WebhookRefused", (error) => Effect.succeed(error.reason === "tooOld" ? 400 : 401))
 *   )
 * )
 * if (answer !== 400) throw new Error(`answered ${answer}`)
 * ```
 */
import * as Clock from "effect/Clock"
import * as Config from "effect/Config"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"

// ---------------------------------------------------------------------------
// Request
// ---------------------------------------------------------------------------

/** A request as it came in, and what it is checked against. */
export interface Request {
  /** As it came, byte for byte. */
  readonly body: string | Uint8Array
  /** Of `fetch` or of `node:http`; names in any case. */
  readonly headers: Headers | Readonly<Record<string, string | ReadonlyArray<string> | undefined>>
  /** The endpoint's signing secret, `whsec_…`; one without that beginning is taken as it is. */
  readonly secret: Redacted.Redacted
  /** How far our clock and OpenAI's may be apart; 5 minutes unless told. */
  readonly tolerance?: Duration.Input | undefined
}

/** `OPENAI_WEBHOOK_SECRET`, which must be set. */
export const secret: Config.Config<Redacted.Redacted> = Config.schema(
  Schema.Redacted(Schema.NonEmptyString),
  "OPENAI_WEBHOOK_SECRET"
)

// ---------------------------------------------------------------------------
// Event
// ---------------------------------------------------------------------------

const event = <const Types extends ReadonlyArray<string>, Fields extends Schema.Struct.Fields>(
  types: Types,
  data: Fields
) =>
  Schema.Struct({
    type: Schema.Literals(types),
    /** Of the event; a delivery has another, `webhookId`. */
    id: Schema.String,
    /** Unix seconds. */
    created_at: Schema.Finite,
    data: Schema.Struct(data)
  })

const id = { id: Schema.String }

const incoming = {
  sip_headers: Schema.Array(Schema.Struct({ name: Schema.String, value: Schema.String })),
  sip_media_security: Schema.optional(Schema.NullOr(Schema.String))
}

const Known = Schema.Union([
  event(
    [
      "response.completed",
      "response.failed",
      "response.cancelled",
      "response.incomplete",
      "batch.completed",
      "batch.failed",
      "batch.expired",
      "batch.cancelled",
      "fine_tuning.job.succeeded",
      "fine_tuning.job.failed",
      "fine_tuning.job.cancelled",
      "eval.run.succeeded",
      "eval.run.failed",
      "eval.run.canceled",
      "agent.environment.ready",
      "agent.environment.failed",
      "agent.environment.suspended",
      "agent.environment.expired",
      "agent.session.created",
      "agent.session.in_progress",
      "agent.session.idle",
      "agent.session.failed",
      "safety.alert.created",
      "safety.org_alert.created",
      "safety.warning_issued",
      "safety.deactivation_issued"
    ],
    id
  ),
  event(["agent.session.action_required"], {
    ...id,
    required_action: Schema.Struct({ type: Schema.String })
  }),
  event(["realtime.call.incoming"], { call_id: Schema.String, ...incoming }),
  event(["live.call.incoming", "live.transport.incoming"], { session_id: Schema.String, ...incoming })
])

/** An event that this version knows; fields that are not named here stay on it. */
export type KnownEvent = typeof Known.Type

/** An event that this version does not know. */
export interface UnknownEvent {
  readonly type: "unknown"
  /** Its name on the wire. */
  readonly name: string
  /** As it came. */
  readonly raw: unknown
}

/** What OpenAI says. */
export type Event = KnownEvent | UnknownEvent

/** An event, and the delivery that it came with. */
export interface Delivery {
  /** The same each time that an event is sent again: what was handled once need not be handled twice. */
  readonly webhookId: string
  /** When it was sent, in milliseconds since the epoch. */
  readonly sentAt: number
  readonly event: Event
}

const isKnown = Schema.is(Known)
const isTyped = Schema.is(Schema.Struct({ type: Schema.NonEmptyString }))
const knownTypes: ReadonlySet<string> = new Set(
  Known.members.flatMap((member): ReadonlyArray<string> => member.fields.type.literals)
)

const read = Effect.fnUntraced(function* (
  body: string | Uint8Array
): Effect.fn.Return<Event, WebhookUnreadable> {
  const json = yield* Effect.try({
    try: (): unknown => JSON.parse(typeof body === "string" ? body : new TextDecoder().decode(body)),
    catch: () => new WebhookUnreadable({ detail: "a body that is not JSON" })
  })
  if (isKnown(json)) return json
  if (!isTyped(json)) return yield* new WebhookUnreadable({ detail: "an event without a type" })
  const { type } = json
  if (!knownTypes.has(type)) return { type: "unknown", name: type, raw: json }
  return yield* new WebhookUnreadable({ type, detail: `not the shape of ${type}` })
})

// ---------------------------------------------------------------------------
// Check
// ---------------------------------------------------------------------------

const headerOf = (headers: Request["headers"], name: string): Effect.Effect<string, WebhookRefused> => {
  const found = headers instanceof Headers ? headers.get(name) : fieldOf(headers, name)
  return found === undefined || found === null || found === ""
    ? Effect.fail(new WebhookRefused({ reason: "headerMissing", header: name }))
    : Effect.succeed(found)
}

const fieldOf = (headers: Exclude<Request["headers"], Headers>, name: string): string | undefined => {
  const value = headers[name] ?? Object.entries(headers).find(([key]) => key.toLowerCase() === name)?.[1]
  return typeof value === "string" ? value : value?.[0]
}

const encoder = new TextEncoder()
const prefix = "whsec_"

/** Base64, with or without its padding; `undefined` for anything else. */
const bytesOf = (base64: string): Uint8Array<ArrayBuffer> | undefined =>
  /^[A-Za-z0-9+/]+={0,2}$/u.test(base64) ? Uint8Array.from(Buffer.from(base64, "base64")) : undefined

const keyOf = Effect.fnUntraced(function* (text: string) {
  const raw = text.startsWith(prefix) ? bytesOf(text.slice(prefix.length)) : encoder.encode(text)
  if (raw === undefined || raw.length === 0) return yield* new WebhookRefused({ reason: "secretInvalid" })
  return yield* Effect.promise(() =>
    crypto.subtle.importKey("raw", raw, { name: "HMAC", hash: "SHA-256" }, false, ["sign"])
  )
})

/** Takes as long wherever the first difference is. */
const areEqual = (left: Uint8Array, right: Uint8Array): boolean => {
  if (left.length !== right.length) return false
  let difference = 0
  for (const [index, byte] of left.entries()) difference |= byte ^ (right[index] ?? 0)
  return difference === 0
}

/**
 * Checks that a request is OpenAI's and of now. Its body is not read.
 *
 * Fails with `WebhookRefused`: a header is missing, the time is none or too far from ours, the secret is not
 * base64, or no signature of version 1 is right.
 */
export const verify = Effect.fnUntraced(function* ({
  body,
  headers,
  secret: expected,
  tolerance = "5 minutes"
}: Request): Effect.fn.Return<Omit<Delivery, "event">, WebhookRefused> {
  const signatures = yield* headerOf(headers, "webhook-signature")
  const timestamp = yield* headerOf(headers, "webhook-timestamp")
  const webhookId = yield* headerOf(headers, "webhook-id")
  if (!/^\d{1,12}$/u.test(timestamp)) return yield* new WebhookRefused({ reason: "timestampInvalid" })
  const sentAt = Number(timestamp) * 1000
  // Whole seconds, as the sender counts them.
  const age = Math.floor((yield* Clock.currentTimeMillis) / 1000) * 1000 - sentAt
  const most = Duration.toMillis(tolerance)
  if (age > most) return yield* new WebhookRefused({ reason: "tooOld" })
  if (age < -most) return yield* new WebhookRefused({ reason: "tooNew" })

  const key = yield* keyOf(Redacted.value(expected))
  const head = encoder.encode(`${webhookId}.${timestamp}.`)
  const signed = new Uint8Array(Buffer.concat([head, typeof body === "string" ? encoder.encode(body) : body]))
  const ours = new Uint8Array(yield* Effect.promise(() => crypto.subtle.sign("HMAC", key, signed)))
  // All are looked at: how long it takes does not tell which one was right.
  let matches = false
  for (const signature of signatures.split(" ")) {
    const theirs = signature.startsWith("v1,") ? bytesOf(signature.slice(3)) : undefined
    if (theirs !== undefined && areEqual(ours, theirs)) matches = true
  }
  if (!matches) return yield* new WebhookRefused({ reason: "signatureMismatch" })
  return { webhookId, sentAt }
})

/**
 * Checks that a request is OpenAI's, and reads its event.
 *
 * Fails with `WebhookRefused` as `verify` does, and with `WebhookUnreadable` where the body is no event, or not
 * one of its type. A type that nobody here knows is no failure.
 */
export const unwrap = (request: Request): Effect.Effect<Delivery, WebhookRefused | WebhookUnreadable> =>
  Effect.flatMap(verify(request), (sent) =>
    Effect.map(read(request.body), (found) => ({ ...sent, event: found }))
  )

// ---------------------------------------------------------------------------
// Errors
// ---------------------------------------------------------------------------

/** Why a request was not taken for OpenAI's. */
export const Reason = Schema.Literals([
  "headerMissing",
  "timestampInvalid",
  "tooOld",
  "tooNew",
  "secretInvalid",
  "signatureMismatch"
])

const said: Readonly<Record<typeof Reason.Type, readonly [what: string, hint: string]>> = {
  headerMissing: ["a header is missing", "OpenAI sends it with every webhook: does a proxy take it away?"],
  timestampInvalid: ["its time is no number of seconds", "It does not come from OpenAI."],
  tooOld: ["it was sent too long ago", "It is repeated, or a clock is slow."],
  tooNew: ["it was sent in the future", "Set this machine's clock."],
  secretInvalid: [
    "the signing secret is no whsec_ and base64",
    "Set OPENAI_WEBHOOK_SECRET to what the endpoint's page shows."
  ],
  signatureMismatch: [
    "no signature is right",
    "Check OPENAI_WEBHOOK_SECRET, and that the body is as it came, byte for byte."
  ]
}

/** A request that is not OpenAI's, or not of now: to be answered with 400 or 401, and not to be acted on. */
export class WebhookRefused extends Schema.TaggedError<WebhookRefused>()("WebhookRefused", {
  reason: Reason,
  /** Which one is missing. */
  header: Schema.optional(Schema.String)
}) {
  override get message(): string {
    return `webhook refused: ${said[this.reason][0]}${this.header === undefined ? "" : ` (${this.header})`}`
  }
  /** What the person in front of it should do. */
  get hint(): string {
    return said[this.reason][1]
  }
}

/** OpenAI's word, but not one that can be read. */
export class WebhookUnreadable extends Schema.TaggedError<WebhookUnreadable>()("WebhookUnreadable", {
  /** As it calls itself. */
  type: Schema.optional(Schema.String),
  detail: Schema.String
}) {
  override get message(): string {
    return `webhook unreadable: ${this.detail}`
  }
  /** What the person in front of it should do. */
  get hint(): string {
    return "Update @llm/openai; until then take it with verify, and read the body yourself."
  }
}
