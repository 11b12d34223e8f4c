import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Effect, Redacted } from "effect"
import { TestClock } from "effect/testing"
import { Webhooks } from "@llm/openai"
import * as fc from "fast-check"
import { createHmac } from "node:crypto"
import OpenAI from "openai"
import { holdsEffect } from "./support/Property.ts"

/** Of the official client's own tests. */
const vector = {
  secret: "whsec_RdvaYFYUXuIFuEbvZHwMfYFhUf7aMYjYcmM24+Aj40c=",
  id: "wh_685c059ae39c8190af8c71ed1022a24d",
  timestamp: 1_750_861_210,
  signature: "v1,gUAg4R2hWouRZqRQG4uJypNS8YK885G838+EHb4nKBY=",
  body: '{"id": "evt_685c059ae3a481909bdc86819b066fb6", "object": "event", "created_at": 1750861210, "type": "response.completed", "data": {"id": "resp_123"}}'
}

interface Sent {
  readonly secret: string
  readonly id: string
  readonly timestamp: string
  readonly signature: string
  readonly body: string
}

const sent: Sent = { ...vector, timestamp: String(vector.timestamp) }

const headersOf = ({ id, signature, timestamp }: Sent) => ({
  "webhook-id": id,
  "webhook-timestamp": timestamp,
  "webhook-signature": signature
})

/** A right signature, made with Node's own means. */
const sign = ({ body, id, timestamp }: Sent, secret: string): string => {
  const key = secret.startsWith("whsec_") ? Buffer.from(secret.slice(6), "base64") : secret
  return `v1,${createHmac("sha256", key).update(`${id}.${timestamp}.${body}`).digest("base64")}`
}

const signed = (body: unknown): Sent => {
  const unsigned = { ...sent, body: JSON.stringify(body) }
  return { ...unsigned, signature: sign(unsigned, unsigned.secret) }
}

const unwrap = (request: Sent, tolerance?: Webhooks.Request["tolerance"]) =>
  Webhooks.unwrap({
    body: request.body,
    headers: headersOf(request),
    secret: Redacted.make(request.secret),
    tolerance
  })

const refusal = (request: Sent) =>
  Effect.map(Effect.flip(unwrap(request)), (error) =>
    error._tag === "WebhookRefused" ? error.reason : error._tag
  )

const at = (seconds: number) => TestClock.setTime(seconds * 1000)

describe("unwrap", () => {
  it.effect("takes the official client's own vector, as text and as bytes, with any kind of headers", () =>
    Effect.gen(function* () {
      yield* at(vector.timestamp)
      const headers = headersOf(sent)
      for (const body of [vector.body, new TextEncoder().encode(vector.body)]) {
        for (const kind of [
          headers,
          new Headers(headers),
          Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toUpperCase(), [value]]))
        ]) {
          const { event, ...delivery } = yield* Webhooks.unwrap({
            body,
            headers: kind,
            secret: Redacted.make(vector.secret)
          })
          assert.deepStrictEqual(delivery, { webhookId: vector.id, sentAt: vector.timestamp * 1000 })
          assert.deepStrictEqual<unknown>(event, JSON.parse(vector.body))
        }
      }
    })
  )

  it.effect("takes any of several signatures, and none of another version", () =>
    Effect.gen(function* () {
      yield* at(vector.timestamp)
      const other = sign(sent, "whsec_AAAA")
      for (const signature of [
        `${other} ${vector.signature}`,
        `${vector.signature} ${other}`,
        `v1a,AAAA ${vector.signature}`,
        `nonsense v1, ${vector.signature}`
      ]) {
        yield* unwrap({ ...sent, signature })
      }
      const bare = vector.signature.slice(3)
      for (const signature of [other, `${other} ${other}`, bare, `v2,${bare}`, "v1,", "v1,AAAA", "v1,§"]) {
        assert.strictEqual(yield* refusal({ ...sent, signature }), "signatureMismatch")
      }
    })
  )

  it.effect.each([
    [-301, "tooNew"],
    [-300, "taken"],
    [300, "taken"],
    [301, "tooOld"]
  ] as const)("%d seconds after it was sent: %s", ([age, outcome]) =>
    Effect.gen(function* () {
      yield* at(vector.timestamp + age)
      const found = yield* Effect.match(unwrap(sent), {
        onFailure: (error) => (error._tag === "WebhookRefused" ? error.reason : error._tag),
        onSuccess: () => "taken"
      })
      assert.strictEqual(found, outcome)
    })
  )

  it.effect("lets the tolerance be chosen", () =>
    Effect.gen(function* () {
      yield* at(vector.timestamp + 3600)
      yield* unwrap(sent, "1 hour")
      assert.strictEqual((yield* Effect.flip(unwrap(sent, "59 minutes")))._tag, "WebhookRefused")
    })
  )

  it.effect("tells what is missing or wrong, without the secret", () =>
    Effect.gen(function* () {
      yield* at(vector.timestamp)
      for (const header of ["webhook-id", "webhook-timestamp", "webhook-signature"]) {
        const error = yield* Effect.flip(
          Webhooks.verify({
            body: vector.body,
            headers: { ...headersOf(sent), [header]: undefined },
            secret: Redacted.make(vector.secret)
          })
        )
        assert.deepInclude({ ...error }, { reason: "headerMissing", header })
        assert.include(error.message, header)
      }
      for (const timestamp of ["soon", "1750861210.5", "-1", " 1750861210"]) {
        assert.strictEqual(yield* refusal({ ...sent, timestamp }), "timestampInvalid")
      }
      for (const secret of ["", "whsec_", "whsec_not base64"]) {
        const error = yield* Effect.flip(unwrap({ ...sent, secret }))
        assert.deepInclude({ ...error }, { reason: "secretInvalid" })
        assert.notInclude(`${error.message} ${error.hint}`, "not base64 ")
      }
      assert.strictEqual(yield* refusal({ ...sent, body: `${vector.body} ` }), "signatureMismatch")
      assert.strictEqual(yield* refusal({ ...sent, id: "wh_1" }), "signatureMismatch")
    })
  )

  it.effect("reads its secret from the environment", () =>
    Effect.gen(function* () {
      yield* at(vector.timestamp)
      const secret = yield* Webhooks.secret
      assert.notInclude(String(secret), "whsec")
      const { event } = yield* Webhooks.unwrap({ body: vector.body, headers: headersOf(sent), secret })
      assert.strictEqual(event.type, "response.completed")
    }).pipe(
      Effect.provide(
        ConfigProvider.layer(ConfigProvider.fromEnv({ env: { OPENAI_WEBHOOK_SECRET: vector.secret } }))
      )
    )
  )

  it.effect("keeps a type that nobody knows, and names one that is not what it should be", () =>
    Effect.gen(function* () {
      yield* at(vector.timestamp)
      const novel = { type: "moon.landed", id: "evt_1", data: { crater: 7 } }
      assert.deepStrictEqual<unknown>((yield* unwrap(signed(novel))).event, {
        type: "unknown",
        name: "moon.landed",
        raw: novel
      })
      const call = {
        type: "realtime.call.incoming",
        id: "evt_1",
        created_at: 1,
        data: { call_id: "rtc_1", sip_headers: [{ name: "From", value: "sip:a@b" }], more: true }
      }
      const { event } = yield* unwrap(signed(call))
      assert.strictEqual(event.type === "realtime.call.incoming" ? event.data.call_id : "", "rtc_1")
      assert.deepStrictEqual<unknown>(event, call)
      for (const body of [null, [], {}, { type: "" }, { ...novel, type: "batch.failed", data: {} }]) {
        const error = yield* Effect.flip(unwrap(signed(body)))
        assert.strictEqual(error._tag, "WebhookUnreadable")
      }
      const text = { ...sent, body: "no" }
      assert.strictEqual(
        yield* refusal({ ...text, signature: sign(text, vector.secret) }),
        "WebhookUnreadable"
      )
    })
  )

  it("takes and refuses what the official client takes and refuses", async () => {
    const client = new OpenAI({ apiKey: "sk-none" })
    const now = Math.floor(Date.now() / 1000)
    await holdsEffect(
      fc.record({
        body: fc.string({ unit: "grapheme" }).map((text) => JSON.stringify({ type: `x${text}` })),
        id: fc.stringMatching(/^wh_[a-z0-9]{1,8}$/u),
        age: fc.constantFrom(-900, -200, 0, 200, 900),
        secret: fc.oneof(
          fc
            .uint8Array({ minLength: 1, maxLength: 40 })
            .map((bytes) => `whsec_${Buffer.from(bytes).toString("base64")}`),
          fc.stringMatching(/^[a-z]{1,20}$/u)
        ),
        wrong: fc.boolean(),
        more: fc.array(fc.constantFrom("v1,AAAA", "v2,AAAA", "v1,", "", `v1,${"A".repeat(43)}=`), {
          maxLength: 40
        }),
        first: fc.boolean()
      }),
      ({ age, body, first, id, more, secret, wrong }) =>
        Effect.gen(function* () {
          yield* at(now)
          const request = { ...sent, body, id, secret, timestamp: String(now - age) }
          const right = sign(wrong ? { ...request, body: `${body} ` } : request, secret)
          const signature = (first ? [right, ...more] : [...more, right]).join(" ")
          const ours = yield* Effect.result(unwrap({ ...request, signature }))
          const theirs = yield* Effect.result(
            Effect.tryPromise(() =>
              client.webhooks.unwrap(body, headersOf({ ...request, signature }), secret)
            )
          )
          assert.strictEqual(ours._tag, theirs._tag)
        }).pipe(Effect.provide(TestClock.layer()), Effect.orDie)
    )
  })
})
