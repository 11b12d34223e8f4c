/** Every row of the fault catalogue that a server can do, on the wire. The README's table is held against this one. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { readFileSync } from "node:fs"
import { gunzipSync } from "node:zlib"
import type { Journal } from "@llm/simulator"
import { Fault, Simulator } from "@llm/simulator"
import * as Wire from "./Wire.ts"

interface Seen {
  readonly reply: Wire.Reply
  readonly entry: Journal.Entry
  readonly events: ReadonlyArray<string>
  /** The body, or the events, as JSON. */
  readonly json: ReturnType<typeof JSON.parse>
  readonly count: number
  readonly sound: Wire.Reply
}

type Kind = "chat" | "stream" | "tools" | "tool-stream" | "responses" | "embeddings"

interface Row {
  readonly id: string
  readonly fault: string
  readonly kind: Kind
  readonly holds: (seen: Seen) => void
}

const messages = [{ role: "user", content: "Use weather and news: why is the sky blue?" }]
const usage = { include_usage: true }
const tool = (name: string) => ({
  type: "function",
  function: {
    name,
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] }
  }
})
const model = "gpt-6-luna+tokens=12"
const tools = [tool("weather"), tool("news")]

const requests: Readonly<Record<Kind, { readonly path: string; readonly body: object }>> = {
  chat: { path: "/v1/chat/completions", body: { model, messages } },
  stream: { path: "/v1/chat/completions", body: { model, messages, stream: true, stream_options: usage } },
  tools: { path: "/v1/chat/completions", body: { model, messages, tools } },
  "tool-stream": { path: "/v1/chat/completions", body: { model, messages, tools, stream: true } },
  responses: { path: "/v1/responses", body: { model, input: "Why is the sky blue?", stream: true } },
  embeddings: {
    path: "/v1/embeddings",
    body: { model: "text-embedding-3-small", input: ["a", "b", "c"], dimensions: 8 }
  }
}

const status =
  (expected: number, holds: (seen: Seen) => void = () => {}) =>
  (seen: Seen) => {
    assert.strictEqual(seen.reply.status, expected)
    holds(seen)
  }
const code = (expected: number, name: string | number | null) =>
  status(expected, ({ json }) => assert.strictEqual(json.error.code, name))
const header = (name: string, value: string) => (seen: Seen) =>
  assert.strictEqual(seen.reply.headers.get(name), value)
const ended = (how: Wire.Reply["ended"], bytes?: string) => (seen: Seen) => {
  assert.strictEqual(seen.reply.ended, how)
  if (bytes !== undefined) assert.strictEqual(seen.reply.bytes, bytes)
}
const deltas = (seen: Seen): ReadonlyArray<string> =>
  seen.events.filter((data) => data.includes('"delta":{"content"') && !data.includes('"content":""'))
const calls = (seen: Seen): ReadonlyArray<ReturnType<typeof JSON.parse>> =>
  seen.json.choices[0].message.tool_calls
const pieces = (seen: Seen) =>
  seen.events.flatMap((data) => {
    const call = data === "[DONE]" ? undefined : JSON.parse(data).choices?.[0]?.delta?.tool_calls?.[0]
    return call === undefined ? [] : [call]
  })

const rows: ReadonlyArray<Row> = [
  { id: "T4", fault: "reset:headers", kind: "chat", holds: ended("reset", "") },
  { id: "T5", fault: "close:headers", kind: "chat", holds: ended("fin", "") },
  {
    id: "T5",
    fault: "close:after",
    kind: "chat",
    holds: (seen) => {
      assert.strictEqual(seen.reply.body, seen.sound.body)
      assert.isFalse(seen.reply.headers.has("connection") && seen.reply.headers.get("connection") === "close")
    }
  },
  {
    id: "T7",
    fault: "drip-headers:1ms",
    kind: "chat",
    holds: (seen) => {
      assert.deepStrictEqual(
        [seen.reply.status, seen.reply.body, seen.reply.ended],
        [200, seen.sound.body, "fin"]
      )
      assert.isAtLeast(seen.entry.durationMs ?? 0, 100)
    }
  },
  {
    id: "T8",
    fault: "truncated-body",
    kind: "chat",
    holds: (seen) => {
      assert.isBelow(seen.reply.body.length, Number(seen.reply.headers.get("content-length")))
      ended("fin")(seen)
    }
  },
  {
    id: "T8",
    fault: "short-length:10",
    kind: "chat",
    holds: (seen) => {
      const length = Number(seen.reply.headers.get("content-length"))
      assert.strictEqual(length, Buffer.byteLength(seen.sound.body) - 10)
    }
  },
  {
    id: "T10",
    fault: "bad-encoding",
    kind: "chat",
    holds: (seen) => {
      assert.strictEqual(seen.reply.headers.get("content-encoding"), "gzip")
      const raw = seen.reply.bytes.slice(seen.reply.bytes.indexOf("\r\n\r\n") + 4)
      assert.throws(() => gunzipSync(Buffer.from(raw, "latin1")))
    }
  },
  {
    id: "T11",
    fault: "status:307;location=https%3A%2F%2Felsewhere.invalid%2Fv1",
    kind: "chat",
    holds: (seen) => {
      status(307)(seen)
      header("location", "https://elsewhere.invalid/v1")(seen)
    }
  },
  { id: "T12", fault: "status:413,early", kind: "chat", holds: status(413, header("connection", "close")) },
  {
    id: "H1",
    fault: "status:429;retry-after=3",
    kind: "chat",
    holds: status(429, header("retry-after", "3"))
  },
  {
    id: "H2",
    fault: "status:429;retry-after=120",
    kind: "chat",
    holds: status(429, header("retry-after", "120"))
  },
  {
    id: "H3",
    fault:
      "status:503;retry-after=Wed%2C%2021%20Oct%202015%2007:28:00%20GMT;date=Wed%2C%2021%20Oct%202015%2007:27:00%20GMT",
    kind: "chat",
    holds: (seen) => {
      header("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT")(seen)
      header("date", "Wed, 21 Oct 2015 07:27:00 GMT")(seen)
    }
  },
  { id: "H4", fault: "status:429;retry-after-ms=-1", kind: "chat", holds: header("retry-after-ms", "-1") },
  { id: "H4", fault: "status:429;retry-after=abc", kind: "chat", holds: header("retry-after", "abc") },
  {
    id: "H5",
    fault: "status:429;reset-tokens=6m0s",
    kind: "chat",
    holds: header("x-ratelimit-reset-tokens", "6m0s")
  },
  {
    id: "H6",
    fault: "status:429;too-large",
    kind: "chat",
    holds: ({ reply }) => assert.include(reply.body, "Request too large")
  },
  {
    id: "H7",
    fault: "status:429;code=insufficient_quota",
    kind: "chat",
    holds: code(429, "insufficient_quota")
  },
  { id: "H8", fault: "status:429;code=slow_down", kind: "chat", holds: code(429, "slow_down") },
  {
    id: "H9",
    fault: "status:503;code=server_is_overloaded;retry-after=1",
    kind: "chat",
    holds: code(503, "server_is_overloaded")
  },
  { id: "H10", fault: "status:500", kind: "chat", holds: code(500, null) },
  {
    id: "H11",
    fault: "status:500;should-retry=false",
    kind: "chat",
    holds: status(500, header("x-should-retry", "false"))
  },
  {
    id: "H11",
    fault: "status:400;should-retry=true",
    kind: "chat",
    holds: status(400, header("x-should-retry", "true"))
  },
  {
    id: "H12",
    fault: "status:502;html",
    kind: "chat",
    holds: status(502, header("content-type", "text/html; charset=UTF-8"))
  },
  { id: "H12", fault: "status:502;numeric-code", kind: "chat", holds: code(502, 502) },
  { id: "H13", fault: "status:401", kind: "chat", holds: code(401, "invalid_api_key") },
  { id: "H14", fault: "status:403", kind: "chat", holds: code(403, "unsupported_country_region_territory") },
  { id: "H15", fault: "status:404", kind: "chat", holds: code(404, "model_not_found") },
  {
    id: "H16",
    fault: "status:400;code=conversation_locked",
    kind: "chat",
    holds: code(400, "conversation_locked")
  },
  { id: "H17", fault: "status:409", kind: "chat", holds: status(409) },
  {
    id: "H18",
    fault: "status:413",
    kind: "chat",
    holds: status(413, ({ json }) => assert.strictEqual(json.error.type, "server_error"))
  },
  {
    id: "H19",
    fault: "html",
    kind: "chat",
    holds: status(200, ({ reply }) => assert.include(reply.body, "<html>"))
  },
  {
    id: "H19",
    fault: "status:200;text",
    kind: "chat",
    holds: status(200, header("content-type", "text/plain"))
  },
  {
    id: "H19",
    fault: "empty",
    kind: "chat",
    holds: status(200, ({ reply }) => assert.strictEqual(reply.body, ""))
  },
  { id: "H20", fault: "error-200", kind: "chat", holds: code(200, null) },
  { id: "H21", fault: "status:204", kind: "chat", holds: status(204) },
  {
    id: "H21",
    fault: "status:202;empty",
    kind: "chat",
    holds: status(202, ({ reply }) => assert.strictEqual(reply.body, ""))
  },
  {
    id: "H22",
    fault: "status:500;text",
    kind: "chat",
    holds: status(500, header("content-type", "text/plain"))
  },
  {
    id: "H22",
    fault: "status:500;no-fields",
    kind: "chat",
    holds: status(500, ({ json }) => assert.deepStrictEqual(json, { error: {} }))
  },
  {
    id: "H22",
    fault: "status:500;string-error",
    kind: "chat",
    holds: status(500, ({ json }) => assert.isString(json.error))
  },
  {
    id: "H22",
    fault: "status:500;size=1000000",
    kind: "chat",
    holds: status(500, ({ reply }) => assert.strictEqual(reply.body.length, 1_000_000))
  },
  {
    id: "H23",
    fault: "no-request-id",
    kind: "chat",
    holds: ({ reply }) => assert.isFalse(reply.headers.has("x-request-id"))
  },
  {
    id: "H23",
    fault: "odd-headers",
    kind: "chat",
    holds: ({ reply }) => {
      assert.include(reply.bytes, "CoNtEnT-TyPe: ")
      assert.strictEqual(reply.bytes.split(/openai-version: /i).length, 3)
    }
  },
  {
    id: "H23",
    fault: "huge-headers:20000",
    kind: "stream",
    holds: ({ reply }) => assert.strictEqual(reply.headers.get("x-huge")?.length, 20_000)
  },
  {
    id: "H24",
    fault: "status:429;code=resource_unavailable",
    kind: "chat",
    holds: code(429, "resource_unavailable")
  },
  {
    id: "S1",
    fault: "cut:4",
    kind: "stream",
    holds: (seen) => {
      assert.strictEqual(seen.count, 4)
      assert.notInclude(seen.reply.body, "[DONE]")
      ended("fin")(seen)
    }
  },
  { id: "S2", fault: "reset:4", kind: "stream", holds: ended("reset") },
  { id: "S3", fault: "no-done", kind: "stream", holds: ({ events }) => assert.notInclude(events, "[DONE]") },
  {
    id: "S3",
    fault: "no-finish",
    kind: "stream",
    holds: ({ reply }) => {
      assert.include(reply.body, "[DONE]")
      assert.notMatch(reply.body, /"finish_reason":"/)
    }
  },
  {
    id: "S5",
    fault: "slow-first-event:30ms",
    kind: "stream",
    holds: (seen) => {
      assert.strictEqual(seen.reply.body, seen.sound.body)
      assert.isAtLeast(seen.entry.durationMs ?? 0, 29)
    }
  },
  {
    id: "S6",
    fault: "error-event:3",
    kind: "stream",
    holds: ({ count, events }) => {
      assert.strictEqual(count, 3)
      assert.property(JSON.parse(events.at(-1) ?? ""), "error")
    }
  },
  {
    id: "S7",
    fault: "error-event:2;flat;code=server_error;then-failed",
    kind: "responses",
    holds: ({ reply }) => {
      const types = [...reply.body.matchAll(/^event: (.+)$/gm)].map(([, type]) => type)
      assert.deepStrictEqual(types.slice(-2), ["error", "response.failed"])
      const last = JSON.parse(reply.body.trimEnd().split("data: ").at(-1) ?? "")
      assert.deepStrictEqual([last.response.status, last.response.error.code], ["failed", "server_error"])
    }
  },
  {
    id: "S7",
    fault: "error-event:2;nested;code=rate_limit_exceeded",
    kind: "responses",
    holds: ({ reply }) => assert.include(reply.body, '"headers":{"x-ratelimit-reset-tokens":"1s"}')
  },
  {
    id: "S8",
    fault: "failed",
    kind: "responses",
    holds: ({ reply }) => assert.include(reply.body, "event: response.failed")
  },
  {
    id: "S8",
    fault: "length",
    kind: "responses",
    holds: ({ reply }) => assert.include(reply.body, "event: response.incomplete")
  },
  {
    id: "S9",
    fault: "bad-json:2",
    kind: "stream",
    holds: ({ events }) =>
      assert.strictEqual(events.filter((data) => !isJson(data)).length, 2, "[DONE] is none either")
  },
  {
    id: "S10",
    fault: "chunked:mixed",
    kind: "stream",
    holds: (seen) => {
      for (const ending of [/[^\r]\n\n/, /\r\n\r\n/, /\r\r/]) assert.match(seen.reply.body, ending)
      assert.strictEqual(seen.reply.body.replaceAll(/\r\n|\r/g, "\n"), seen.sound.body)
    }
  },
  {
    id: "S10",
    fault: "chunked:crlf,split:1",
    kind: "stream",
    holds: (seen) => assert.strictEqual(seen.reply.body.replaceAll("\r\n", "\n"), seen.sound.body)
  },
  {
    id: "S10",
    fault: "chunked:cr",
    kind: "stream",
    holds: (seen) => assert.strictEqual(seen.reply.body.replaceAll("\r", "\n"), seen.sound.body)
  },
  {
    id: "S10",
    fault: "bom",
    kind: "stream",
    holds: ({ reply }) => assert.isTrue(reply.body.startsWith("\uFEFF"))
  },
  {
    id: "S10",
    fault: "ping:2",
    kind: "stream",
    holds: ({ reply }) => assert.strictEqual(reply.body.split(": ping\n\n").length, 7)
  },
  {
    id: "S10",
    fault: "multi-line",
    kind: "stream",
    holds: (seen) =>
      assert.strictEqual(seen.reply.body.replaceAll("data: {\ndata: ", "data: {"), seen.sound.body)
  },
  {
    id: "S10",
    fault: "no-space",
    kind: "stream",
    holds: (seen) => assert.strictEqual(seen.reply.body.replaceAll(/^data:/gm, "data: "), seen.sound.body)
  },
  {
    id: "S10",
    fault: "extra-fields",
    kind: "stream",
    holds: (seen) => {
      assert.include(seen.reply.body, "id: 1\nretry: 1000\nx-unknown: 1\ndata: ")
      assert.strictEqual(seen.reply.body.replaceAll(/^(id|retry|x-unknown): .+\n/gm, ""), seen.sound.body)
    }
  },
  {
    id: "S11",
    fault: "no-blank-line",
    kind: "stream",
    holds: (seen) => assert.strictEqual(`${seen.reply.body}\n`, seen.sound.body)
  },
  {
    id: "S12",
    fault: "big-event:1000000",
    kind: "stream",
    holds: ({ events }) => assert.strictEqual(events.filter((data) => data.length > 1_000_000).length, 1)
  },
  {
    id: "S12",
    fault: "split:1",
    kind: "stream",
    holds: (seen) => assert.strictEqual(seen.reply.body, seen.sound.body)
  },
  {
    id: "S13",
    fault: "drop-event:2",
    kind: "responses",
    holds: (seen) => assert.strictEqual(numbers(seen.reply).length, numbers(seen.sound).length - 1)
  },
  {
    id: "S13",
    fault: "repeat-event:2",
    kind: "responses",
    holds: ({ reply }) =>
      assert.isTrue(numbers(reply).some((number, index, all) => number === all[index - 1]))
  },
  {
    id: "S13",
    fault: "swap-events:2",
    kind: "responses",
    holds: ({ reply }) =>
      assert.isTrue(numbers(reply).some((number, index, all) => number < (all[index - 1] ?? 0)))
  },
  {
    id: "S13",
    fault: "repeat-last",
    kind: "responses",
    holds: ({ reply }) => assert.strictEqual(reply.body.split("event: response.completed").length, 3)
  },
  {
    id: "S16",
    fault: "tool-calls:interleaved",
    kind: "tool-stream",
    holds: (seen) =>
      assert.deepStrictEqual(
        pieces(seen)
          .slice(0, 4)
          .map(({ index }) => index),
        [0, 1, 0, 1]
      )
  },
  {
    id: "S16",
    fault: "tool-calls:sparse",
    kind: "tool-stream",
    holds: (seen) => assert.deepStrictEqual([...new Set(pieces(seen).map(({ index }) => index))], [1, 3])
  },
  {
    id: "S16",
    fault: "tool-calls:no-id",
    kind: "tool-stream",
    holds: (seen) => assert.isTrue(pieces(seen).every((call) => !("id" in call)))
  },
  {
    id: "S16",
    fault: "tool-calls:repeated-name",
    kind: "tool-stream",
    holds: (seen) => assert.isTrue(pieces(seen).every((call) => call.function.name !== undefined))
  },
  {
    id: "S17",
    fault: "no-usage",
    kind: "stream",
    holds: ({ reply }) => assert.notInclude(reply.body, '"usage"')
  },
  {
    id: "S18",
    fault: "unknown-event",
    kind: "stream",
    holds: ({ reply }) => {
      assert.include(reply.body, "event: mystery\n")
      assert.include(reply.body, '"choices":[],"moderation"')
    }
  },
  {
    id: "S18",
    fault: "unknown-event",
    kind: "responses",
    holds: ({ reply }) => assert.include(reply.body, "event: response.mystery.delta\n")
  },
  {
    id: "S19",
    fault: "content-type:application%2Fjson",
    kind: "stream",
    holds: (seen) => {
      header("content-type", "application/json")(seen)
      assert.strictEqual(seen.reply.body, seen.sound.body)
    }
  },
  {
    id: "S19",
    fault: "content-type:text%2Fevent-stream",
    kind: "chat",
    holds: header("content-type", "text/event-stream")
  },
  {
    id: "S3",
    fault: "after-done",
    kind: "stream",
    holds: ({ events }) => {
      assert.strictEqual(events.at(-2), "[DONE]")
      assert.include(events.at(-1), '"delta":{"content"')
    }
  },
  {
    id: "J1",
    fault: "tool-calls:bad-arguments",
    kind: "tools",
    holds: (seen) => assert.isTrue(calls(seen).every((call) => !isJson(call.function.arguments)))
  },
  {
    id: "J1",
    fault: "tool-calls:cut-arguments",
    kind: "tool-stream",
    holds: (seen) => {
      const text = pieces(seen)
        .filter(({ index }) => index === 0)
        .map((call) => call.function.arguments)
        .join("")
      assert.isTrue(text.startsWith("{") && !isJson(text))
    }
  },
  {
    id: "J1",
    fault: "tool-calls:proto",
    kind: "tools",
    holds: (seen) =>
      assert.isTrue(calls(seen).every((call) => call.function.arguments.includes('"__proto__"')))
  },
  {
    id: "J2",
    fault: "tool-calls:unknown-name",
    kind: "tools",
    holds: (seen) => assert.isTrue(calls(seen).every((call) => call.function.name === "no_such_tool"))
  },
  {
    id: "J2",
    fault: "tool-calls:many",
    kind: "tools",
    holds: (seen) => assert.strictEqual(new Set(calls(seen).map(({ id }) => id)).size, 500)
  },
  {
    id: "J2",
    fault: "tool-calls:many",
    kind: "tool-stream",
    holds: (seen) => assert.isAtLeast(new Set(pieces(seen).flatMap(({ id }) => id ?? [])).size, 499)
  },
  {
    id: "J3",
    fault: "length",
    kind: "chat",
    holds: ({ json }) => assert.strictEqual(json.choices[0].finish_reason, "length")
  },
  {
    id: "J4",
    fault: "content-filter",
    kind: "chat",
    holds: ({ json }) => assert.strictEqual(json.choices[0].finish_reason, "content_filter")
  },
  {
    id: "J4",
    fault: "refusal",
    kind: "chat",
    holds: ({ json }) => assert.isString(json.choices[0].message.refusal)
  },
  {
    id: "J5",
    fault: "wrong-schema",
    kind: "chat",
    holds: ({ json }) => assert.property(JSON.parse(json.choices[0].message.content), "unexpected")
  },
  {
    id: "J6",
    fault: "empty-choices",
    kind: "chat",
    holds: ({ json }) => assert.deepStrictEqual(json.choices, [])
  },
  {
    id: "J6",
    fault: "damage:null-message",
    kind: "chat",
    holds: ({ json }) => assert.isNull(json.choices[0].message)
  },
  {
    id: "J6",
    fault: "damage:wrong-index",
    kind: "stream",
    holds: ({ events }) => assert.strictEqual(JSON.parse(events[1] ?? "").choices[0].index, 76)
  },
  {
    id: "J6",
    fault: "damage:string-numbers",
    kind: "chat",
    holds: ({ json }) => assert.isString(json.usage.total_tokens)
  },
  {
    id: "J6",
    fault: "damage:missing-fields",
    kind: "chat",
    holds: ({ json }) => assert.notProperty(json, "choices")
  },
  {
    id: "J7",
    fault: "embeddings:fewer",
    kind: "embeddings",
    holds: ({ json }) => assert.strictEqual(json.data.length, 2)
  },
  {
    id: "J7",
    fault: "embeddings:reordered",
    kind: "embeddings",
    holds: ({ json }) =>
      assert.deepStrictEqual(
        json.data.map((one: { readonly index: number }) => one.index),
        [2, 1, 0]
      )
  },
  {
    id: "J7",
    fault: "embeddings:dimension",
    kind: "embeddings",
    holds: ({ json }) => assert.strictEqual(json.data[0].embedding.length, 7)
  },
  {
    id: "J7",
    fault: "embeddings:wrong-length",
    kind: "embeddings",
    holds: ({ json }) => assert.strictEqual(json.data[0].embedding.length, 7)
  },
  {
    id: "J7",
    fault: "embeddings:not-a-number",
    kind: "embeddings",
    holds: ({ json }) => assert.isNull(json.data[0].embedding[0])
  },
  {
    id: "J8",
    fault: "usage:negative",
    kind: "chat",
    holds: ({ json }) => assert.isBelow(json.usage.completion_tokens, 0)
  },
  {
    id: "J8",
    fault: "usage:wrong-total",
    kind: "stream",
    holds: ({ events }) => {
      const { usage: told } = JSON.parse(events.at(-2) ?? "")
      assert.notStrictEqual(told.total_tokens, told.prompt_tokens + told.completion_tokens)
    }
  },
  {
    id: "J8",
    fault: "usage:cached-above-input",
    kind: "chat",
    holds: ({ json }) =>
      assert.isAbove(json.usage.prompt_tokens_details.cached_tokens, json.usage.prompt_tokens)
  },
  {
    id: "J9",
    fault: "status:400;code=context_length_exceeded",
    kind: "chat",
    holds: code(400, "context_length_exceeded")
  },
  {
    id: "J10",
    fault: "damage:unknown-enum",
    kind: "chat",
    holds: ({ json }) => assert.strictEqual(json.choices[0].finish_reason, "mystery")
  },
  {
    id: "J10",
    fault: "damage:unknown-enum",
    kind: "responses",
    holds: ({ reply }) => assert.include(reply.body, '"status":"mystery"')
  },
  {
    id: "J11",
    fault: "damage:duplicate-keys",
    kind: "chat",
    holds: ({ reply }) => assert.strictEqual(reply.body.split('"id":').length, 3)
  },
  {
    id: "J11",
    fault: "damage:huge-number",
    kind: "chat",
    holds: ({ json }) => assert.strictEqual(json.created, Number.POSITIVE_INFINITY)
  },
  {
    id: "J11",
    fault: "damage:lone-surrogate",
    kind: "chat",
    holds: ({ json }) => assert.isFalse(json.choices[0].message.content.isWellFormed())
  },
  {
    id: "J11",
    fault: "damage:deep-nesting",
    kind: "chat",
    holds: ({ reply }) => assert.include(reply.body, "[".repeat(10_000))
  },
  {
    id: "J12",
    fault: "status:404;code=previous_response_not_found",
    kind: "responses",
    holds: code(404, "previous_response_not_found")
  },
  { id: "O1", fault: "status:503", kind: "chat", holds: status(503) },
  { id: "O8", fault: "status:401", kind: "chat", holds: status(401) }
]

/** Those that leave the reply open, or need more than one exchange: proved one by one below. */
const alone = [
  ["T1", "refuse:20ms"],
  ["T6", "no-headers"],
  ["T9", "stall:2"],
  ["S1", "half-close:2"],
  ["S4", "stall:5"],
  ["S4", "stall:5,heartbeat:50ms"],
  ["S14", "cut:5"],
  ["S15", "stuck"],
  ["O9", "stuck"],
  ["O11", "stuck"]
] as const

const isJson = (text: string): boolean => {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

const numbers = (reply: Wire.Reply): ReadonlyArray<number> =>
  [...reply.body.matchAll(/"sequence_number":(\d+)/g)].map(([, number]) => Number(number))

const parsed = (text: string): ReturnType<typeof JSON.parse> => (isJson(text) ? JSON.parse(text) : undefined)

describe("the fault catalogue", () => {
  it.layer(Simulator.layer())((test) => {
    test.effect.each(rows)("$id $fault of $kind", ({ fault, holds, kind }) =>
      Effect.gen(function* () {
        const { journal, port } = yield* Simulator.Simulator
        const request = requests[kind]
        const sound = yield* Wire.exchange(port, request)
        yield* journal.awaitIdle
        yield* journal.clear
        const reply = yield* Wire.exchange(port, { ...request, headers: { "x-sim-fault": fault } })
        const entry = yield* journal.awaitEntry((seen) => !seen.open)
        assert.strictEqual(entry.outcome, "faulted")
        assert.strictEqual(Fault.format(entry.faults), Fault.format(Fault.fromInput(fault)))
        holds({
          reply,
          entry,
          sound,
          events: Wire.events(reply.body),
          count: deltas({ reply, entry, sound, events: Wire.events(reply.body), count: 0, json: undefined })
            .length,
          json: parsed(reply.body)
        })
      })
    )

    test.effect("T6, T9, S1 and S4 leave the reply open until the client goes", () =>
      Effect.gen(function* () {
        const { journal, port } = yield* Simulator.Simulator
        for (const [fault, kind, bytes] of [
          ["no-headers", "chat", 0],
          ["stall:2", "chat", 1],
          ["half-close:2", "stream", 1],
          ["stall:5", "stream", 1]
        ] as const) {
          yield* journal.clear
          const client = yield* Wire.open(port, { ...requests[kind], headers: { "x-sim-fault": fault } })
          const waiting = yield* journal.awaitEntry(
            (seen) => seen.faults.length > 0 && seen.bytesSent >= bytes
          )
          assert.isTrue(waiting.open, fault)
          if (fault === "half-close:2") yield* ending(client)
          client.destroy()
          const left = yield* journal.awaitEntry((seen) => !seen.open)
          assert.strictEqual(left.outcome, "client-left", fault)
        }
      })
    )

    test.effect("T1 refuses new connections for a while, or for as long as a scope is open", () =>
      Effect.gen(function* () {
        const { port, refuseConnections } = yield* Simulator.Simulator
        const reachable = Effect.map(
          Wire.exchange(port, { method: "GET", path: "/v1/models" }),
          ({ ended: how }) => how
        )
        yield* Effect.scoped(
          Effect.gen(function* () {
            yield* refuseConnections
            assert.strictEqual(yield* reachable, "reset")
          })
        )
        assert.strictEqual(yield* reachable, "complete")
        const request = { ...requests.chat, headers: { "x-sim-fault": "refuse:20ms" } }
        assert.strictEqual((yield* Wire.exchange(port, request)).ended, "reset")
        assert.strictEqual(yield* reachable, "reset")
        // It comes back by itself.
        yield* Effect.repeat(reachable, { until: (how) => how === "complete" })
      })
    )

    test.effect("S15, O9 and O11 are stuck", () =>
      Effect.gen(function* () {
        const { port } = yield* Simulator.Simulator
        const ask = (path: string, body?: object, fault = "") =>
          Effect.map(
            Wire.exchange(port, {
              method: body === undefined ? "GET" : "POST",
              path,
              headers: { "x-sim-fault": fault },
              body
            }),
            (reply) => parsed(reply.body)
          )
        const { id } = yield* ask("/v1/responses", { model, input: "Hello", background: true }, "stuck")
        for (let look = 0; look < 5; look++) {
          assert.strictEqual((yield* ask(`/v1/responses/${id}`)).status, "queued")
        }
        const upload = (purpose: string, text: string) =>
          Effect.map(
            Wire.exchange(port, {
              path: "/v1/files",
              headers: { "content-type": "multipart/form-data; boundary=b" },
              body: `--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\n${purpose}\r\n--b\r\ncontent-disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n${text}\r\n--b--\r\n`
            }),
            (reply) => parsed(reply.body)
          )
        const line = { custom_id: "1", method: "POST", url: "/v1/chat/completions", body: requests.chat.body }
        const input = yield* upload("batch", JSON.stringify(line))
        const settings = { input_file_id: input.id, endpoint: line.url, completion_window: "24h" }
        const batch = yield* ask("/v1/batches", settings, "stuck")
        for (let look = 0; look < 5; look++) {
          assert.strictEqual((yield* ask(`/v1/batches/${batch.id}`)).status, "validating")
        }
        const uploaded = yield* upload("assistants", "hello")
        const store = yield* ask("/v1/vector_stores", { file_ids: [uploaded.id] }, "stuck")
        for (let look = 0; look < 5; look++) {
          assert.strictEqual((yield* ask(`/v1/vector_stores/${store.id}`)).status, "in_progress")
        }
      })
    )
  })

  it("is the README's table", () => {
    const readme = readFileSync(new URL("../README.md", import.meta.url), "utf8").replaceAll(/ +/g, " ")
    const byId = Map.groupBy([...rows.map(({ fault, id }) => [id, fault] as const), ...alone], ([id]) => id)
    for (const [id, entries] of byId) {
      const faults = [...new Set(entries.map(([, fault]) => `\`${fault}\``))]
      assert.include(readme, `| ${id} | ${faults.join(", ")} |`)
    }
  })
})

/** The server's FIN; its own side stays open. */
const ending = (socket: {
  readonly readableEnded: boolean
  readonly once: (event: "end", done: () => void) => unknown
}) =>
  Effect.callback<void>((resume) => {
    if (socket.readableEnded) return resume(Effect.void)
    socket.once("end", () => resume(Effect.void))
  })
