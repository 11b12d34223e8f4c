import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Scope } from "effect"
import { Agent, request } from "undici"
import { Scenario, Simulator } from "@llm/simulator"
import * as Wire from "./Wire.ts"

const messages = [{ role: "user", content: "Why is the daytime sky blue?" }]
const chat = (fault: string, stream: boolean): Wire.Options => ({
  body: {
    model: "gpt-6-luna+tokens=60",
    messages,
    stream,
    ...(stream ? { stream_options: { include_usage: true } } : {})
  },
  headers: { "x-sim-fault": fault }
})

/** Asks with a fault and gives the reply with the journal's entry for it. */
const ask = Effect.fnUntraced(function* (fault: string, stream: boolean) {
  const simulator = yield* Simulator.Simulator
  yield* simulator.journal.clear
  const reply = yield* Wire.exchange(simulator.port, chat(fault, stream))
  const entry = yield* simulator.journal.awaitEntry((seen) => !seen.open)
  return { reply, entry, ...Wire.content(reply.body), events: Wire.events(reply.body) }
})

const finished = (event: string): boolean => event.includes('"finish_reason":"')

describe("faults of the status", () => {
  it.layer(Simulator.layer())((test) => {
    test.effect("carry their hints and bodies", () =>
      Effect.gen(function* () {
        const limited = yield* ask(
          "status:429;retry-after=3;retry-after-ms=2500;should-retry=false;reset-tokens=6m0s",
          false
        )
        assert.strictEqual(limited.reply.status, 429)
        assert.strictEqual(limited.reply.headers.get("retry-after"), "3")
        assert.strictEqual(limited.reply.headers.get("retry-after-ms"), "2500")
        assert.strictEqual(limited.reply.headers.get("x-should-retry"), "false")
        assert.strictEqual(limited.reply.headers.get("x-ratelimit-reset-tokens"), "6m0s")
        assert.strictEqual(limited.reply.headers.get("x-ratelimit-remaining-requests"), "0")
        assert.include(limited.reply.body, "try again in 3s")
        const plain = yield* ask("status:429", false)
        assert.isFalse(plain.reply.headers.has("retry-after"))
        assert.notInclude(plain.reply.body, "try again in")
        const quota = yield* ask("status:429;code=credit_balance_exhausted", true)
        assert.strictEqual(JSON.parse(quota.reply.body).error.type, "insufficient_quota")
        const own = yield* ask("status:418;code=teapot;type=tea;param=cup;message=no%20coffee", false)
        assert.deepStrictEqual(JSON.parse(own.reply.body), {
          error: { message: "no coffee", type: "tea", param: "cup", code: "teapot" }
        })
        const html = yield* ask("status:502;html", false)
        assert.strictEqual(html.reply.headers.get("content-type"), "text/html; charset=UTF-8")
        assert.include(html.reply.body, "502: Bad gateway")
        assert.strictEqual(
          JSON.parse((yield* ask("status:502;numeric-code", false)).reply.body).error.code,
          502
        )
        assert.include((yield* ask("status:429;too-large", false)).reply.body, "Request too large")
        assert.include((yield* ask("status:503;text", false)).reply.body, "upstream connect error")
        assert.strictEqual((yield* ask("status:500;empty", false)).reply.body, "")
        const nothing = yield* ask("status:204", false)
        assert.deepStrictEqual([nothing.reply.status, nothing.reply.body], [204, ""])
        assert.strictEqual(nothing.entry.outcome, "faulted")
      })
    )
  })
})

describe("faults before the headers", () => {
  it.layer(Simulator.layer())((test) => {
    test.effect("reset, close or delay", () =>
      Effect.gen(function* () {
        for (const [fault, ended] of [
          ["reset:headers", "reset"],
          ["close:headers", "fin"]
        ] as const) {
          const { entry, reply } = yield* ask(fault, true)
          assert.deepStrictEqual([reply.bytes, reply.ended], ["", ended])
          assert.deepStrictEqual([entry.outcome, entry.status], ["faulted", undefined])
        }
        const slow = yield* ask("slow-headers:20ms", false)
        assert.strictEqual(slow.reply.status, 200)
        assert.isAtLeast(slow.entry.durationMs ?? 0, 19)
      })
    )

    test.effect("never come, until the client leaves", () =>
      Effect.gen(function* () {
        const { journal, port } = yield* Simulator.Simulator
        yield* journal.clear
        const client = yield* Wire.open(port, chat("no-headers", true))
        const waiting = yield* journal.awaitEntry((seen) => seen.faults.length > 0)
        assert.deepStrictEqual([waiting.open, waiting.status, waiting.stream], [true, undefined, true])
        client.destroy()
        const left = yield* journal.awaitEntry((seen) => !seen.open)
        assert.deepStrictEqual([left.outcome, left.bytesSent], ["client-left", 0])
      })
    )
  })
})

describe("faults inside a stream", () => {
  it.layer(Simulator.layer())((test) => {
    test.effect("cut cleanly, cut abruptly, or reset after n content events", () =>
      Effect.gen(function* () {
        const clean = yield* ask("cut:40", true)
        assert.deepStrictEqual([clean.count, clean.reply.ended], [40, "fin"])
        assert.isTrue(clean.reply.bytes.endsWith("\r\n0\r\n\r\n"), "the HTTP message is complete")
        assert.strictEqual(clean.entry.contentEventsSent, 40)
        const abrupt = yield* ask("cut:40;abrupt", true)
        assert.deepStrictEqual([abrupt.count, abrupt.reply.ended], [40, "fin"])
        assert.isFalse(abrupt.reply.bytes.endsWith("0\r\n\r\n"))
        const reset = yield* ask("reset:40", true)
        assert.deepStrictEqual(
          [reset.count, reset.reply.ended, reset.entry.outcome],
          [40, "reset", "faulted"]
        )
        const early = yield* ask("cut:0", true)
        assert.deepStrictEqual([early.count, early.events.length], [0, 1], "the role chunk still comes")
        const late = yield* ask("cut:1000", true)
        assert.strictEqual(late.count, 60)
        assert.isFalse(late.events.some(finished), "a short reply is cut before its finish reason")
      })
    )

    test.effect("stall, with heartbeats if asked for, and the journal sees the client leave", () =>
      Effect.gen(function* () {
        const { journal, port } = yield* Simulator.Simulator
        for (const fault of ["stall:5", "stall:5,heartbeat:1ms"]) {
          yield* journal.clear
          const client = yield* Wire.open(port, chat(fault, true))
          const stalled = yield* journal.awaitEntry((seen) => seen.contentEventsSent === 5)
          assert.isTrue(stalled.open)
          if (fault.includes("heartbeat"))
            yield* journal.awaitEntry((seen) => seen.bytesSent > stalled.bytesSent)
          client.destroy()
          const left = yield* journal.awaitEntry((seen) => !seen.open)
          assert.deepStrictEqual([left.outcome, left.contentEventsSent], ["client-left", 5])
          yield* journal.awaitIdle
          assert.strictEqual(yield* journal.openRequests, 0)
        }
      })
    )

    test.effect("send an error event of either shape, then end", () =>
      Effect.gen(function* () {
        const bare = yield* ask("error-event:3", true)
        assert.deepStrictEqual(JSON.parse(bare.events.at(-1) ?? "").error.type, "server_error")
        assert.deepStrictEqual([bare.count, bare.reply.ended], [3, "complete"])
        const flat = JSON.parse(
          (yield* ask("error-event:3;flat;code=insufficient_quota", true)).events.at(-1) ?? ""
        )
        assert.deepStrictEqual(
          [flat.type, flat.code, flat.sequence_number],
          ["error", "insufficient_quota", 3]
        )
        const nested = JSON.parse(
          (yield* ask("error-event:3;nested;code=rate_limit_exceeded", true)).events.at(-1) ?? ""
        )
        assert.deepStrictEqual([nested.type, nested.error.code], ["error", "rate_limit_exceeded"])
        assert.property(nested.error.headers, "x-ratelimit-reset-tokens")
      })
    )

    test.effect("break the JSON, the end, the usage, or the choices", () =>
      Effect.gen(function* () {
        const bad = yield* ask("bad-json:2", true)
        const broken = bad.events.filter((data) => data !== "[DONE]" && !parses(data))
        assert.deepStrictEqual([broken.length, bad.events.findIndex((data) => !parses(data))], [1, 3])
        const noDone = yield* ask("no-done", true)
        assert.isTrue(noDone.events.some(finished) && !noDone.events.includes("[DONE]"))
        const noFinish = yield* ask("no-finish", true)
        assert.isTrue(!noFinish.events.some(finished) && noFinish.events.includes("[DONE]"))
        assert.notInclude((yield* ask("no-usage", true)).reply.body, '"usage"')
        const empty = yield* ask("empty-choices", true)
        assert.isTrue(empty.events.slice(0, -1).every((data) => JSON.parse(data).choices.length === 0))
        const truncated = yield* ask("truncated-body", true)
        assert.strictEqual(truncated.reply.ended, "fin")
        assert.isFalse(parses(truncated.events.at(-1) ?? ""))
      })
    )

    test.effect("change the bytes but not the text", () =>
      Effect.gen(function* () {
        const sound = yield* ask("", true)
        const clean = (text: string) =>
          text
            .replaceAll(/\r\n|\r/g, "\n")
            .replace("\uFEFF", "")
            .replaceAll(": ping\n\n", "")
        const cases = [
          ["chunked:crlf", "\r\n\r\n"],
          ["chunked:cr", "\r\r"],
          ["bom", "\uFEFF"],
          ["ping:2,heartbeat:1ms", ": ping"]
        ] as const
        for (const [fault, sign] of cases) {
          const { reply } = yield* ask(fault, true)
          assert.include(reply.body, sign)
          assert.strictEqual(clean(reply.body), sound.reply.body, fault)
        }
        const open = yield* ask("no-blank-line", true)
        assert.strictEqual(`${open.reply.body}\n`, sound.reply.body)
        const split = yield* ask("split:1", true)
        assert.strictEqual(split.reply.body, sound.reply.body)
        const pieces = Wire.chunks(split.reply.bytes.slice(split.reply.bytes.indexOf("\r\n\r\n") + 4))
        assert.isTrue(pieces.every((piece) => piece.length === 1))
        const slow = yield* ask("slow-body:1ms", true)
        assert.strictEqual(slow.reply.body, sound.reply.body)
      })
    )
  })
})

describe("faults of the body", () => {
  it.layer(Simulator.layer())((test) => {
    test.effect("of a one-shot reply", () =>
      Effect.gen(function* () {
        const bad = yield* ask("bad-json", false)
        assert.deepStrictEqual(
          [bad.reply.status, bad.reply.ended, parses(bad.reply.body)],
          [200, "complete", false]
        )
        for (const [fault, ended] of [
          ["truncated-body", "fin"],
          ["cut:1;abrupt", "fin"],
          ["reset:1", "reset"]
        ] as const) {
          const { reply } = yield* ask(fault, false)
          assert.strictEqual(reply.ended, ended)
          assert.isBelow(Buffer.byteLength(reply.body), Number(reply.headers.get("content-length")))
        }
        const refusal = JSON.parse((yield* ask("refusal", false)).reply.body).choices[0]
        assert.deepStrictEqual([refusal.message.content, typeof refusal.message.refusal], [null, "string"])
        for (const [fault, reason] of [
          ["content-filter", "content_filter"],
          ["length", "length"]
        ] as const) {
          const body = JSON.parse((yield* ask(fault, false)).reply.body)
          assert.deepStrictEqual([body.choices[0].finish_reason, body.usage.completion_tokens], [reason, 30])
        }
        assert.deepStrictEqual(JSON.parse((yield* ask("empty-choices", false)).reply.body).choices, [])
        const sound = yield* ask("", false)
        assert.strictEqual((yield* ask("split:7,slow-body:0", false)).reply.body, sound.reply.body)
        assert.strictEqual((yield* ask("slow-body:1ms", false)).reply.body, sound.reply.body)
        assert.property(JSON.parse((yield* ask("error-event:3", false)).reply.body), "error")
      })
    )

    test.effect("with status 200, in both forms", () =>
      Effect.gen(function* () {
        for (const stream of [false, true]) {
          const html = yield* ask("html", stream)
          assert.deepStrictEqual([html.reply.status, html.reply.body.slice(0, 9)], [200, "<!DOCTYPE"])
          const empty = yield* ask("empty", stream)
          assert.deepStrictEqual([empty.reply.status, empty.reply.body], [200, ""])
          const error = yield* ask("error-200", stream)
          assert.deepStrictEqual(
            [error.reply.status, JSON.parse(error.reply.body).error.type],
            [200, "server_error"]
          )
        }
      })
    )
  })
})

const parses = (data: string): boolean => {
  try {
    JSON.parse(data)
    return true
  } catch {
    return data === "[DONE]"
  }
}

describe("Simulator", () => {
  it.effect("takes the fault from the header, else the model's name, else the scenario", () =>
    Effect.gen(function* () {
      const simulator = yield* Simulator.make({ scenario: Scenario.always("status:500") })
      const status = (model: string, header?: string) =>
        Effect.map(
          Wire.exchange(simulator.port, {
            body: { model, messages },
            headers: header === undefined ? {} : { "x-sim-fault": header }
          }),
          (reply) => reply.status
        )
      assert.strictEqual(yield* status("m"), 500)
      assert.strictEqual(yield* status("m+fault=status:404"), 404)
      assert.strictEqual(yield* status("m+fault=status:404", "status:409"), 409)
      assert.strictEqual(yield* status("m+fault=status:404", ""), 200)
      yield* simulator.script(Scenario.sequence([null, "status:503"]))
      assert.deepStrictEqual([yield* status("m"), yield* status("m"), yield* status("m")], [200, 503, 200])
    })
  )

  it.effect("keeps a journal of what came and what went", () =>
    Effect.gen(function* () {
      const simulator = yield* Simulator.make({ seed: 3 })
      const reply = yield* Wire.exchange(simulator.port, {
        path: "/v1/chat/completions?beta=1",
        body: { model: "m+tokens=4", messages, stream: true },
        headers: { authorization: "Bearer sk-secret-abcd", "x-stainless-retry-count": "2" }
      })
      const entry = yield* simulator.journal.awaitEntry((seen) => seen.outcome === "completed")
      assert.deepInclude(entry, {
        sequence: 1,
        requestId: reply.headers.get("x-request-id") ?? "",
        method: "POST",
        path: "/v1/chat/completions",
        body: { model: "m+tokens=4", messages, stream: true },
        model: "m",
        stream: true,
        attempt: 2,
        faults: [],
        status: 200,
        bytesSent: Buffer.byteLength(reply.body),
        contentEventsSent: 4,
        open: false
      })
      assert.strictEqual(entry.headers["authorization"], "…abcd")
      assert.notInclude(JSON.stringify(entry), "secret")
      yield* simulator.journal.clear
      assert.deepStrictEqual(yield* simulator.journal.entries, [])
      yield* simulator.journal.awaitNoSockets
      assert.strictEqual(yield* simulator.journal.openSockets, 0)
    })
  )

  it.effect("keeps only the last entries", () =>
    Effect.gen(function* () {
      const simulator = yield* Simulator.make({ journalSize: 2 })
      for (let count = 0; count < 5; count++)
        yield* Wire.exchange(simulator.port, { method: "GET", path: "/v1/models" })
      assert.deepStrictEqual(
        (yield* simulator.journal.entries).map((entry) => entry.sequence),
        [4, 5]
      )
    })
  )

  it.effect("waits for its tokens when latency is set, and one event goes out at a time", () =>
    Effect.gen(function* () {
      const simulator = yield* Simulator.make({
        latency: { timeToFirstToken: "5 millis", betweenTokens: "1 millis" }
      })
      const tell = (stream: boolean) =>
        Wire.exchange(simulator.port, { body: { model: "m+tokens=8", messages, stream } })
      const reply = yield* tell(true)
      assert.strictEqual(Wire.content(reply.body).count, 8)
      assert.isAtLeast(Wire.chunks(reply.bytes.slice(reply.bytes.indexOf("\r\n\r\n") + 4)).length, 8)
      assert.strictEqual((yield* tell(false)).status, 200)
    })
  )

  it.effect("sends as many events per write as it is told", () =>
    Effect.gen(function* () {
      const pieces = Effect.fnUntraced(function* (options: Simulator.Options) {
        const { port } = yield* Simulator.make(options)
        const reply = yield* Wire.exchange(port, { body: { model: "m+tokens=8", messages, stream: true } })
        return Wire.chunks(reply.bytes.slice(reply.bytes.indexOf("\r\n\r\n") + 4)).length
      }, Effect.scoped)
      // A role chunk, eight tokens, the finish reason and [DONE].
      assert.strictEqual(yield* pieces({ eventsPerWrite: 1 }), 11)
      assert.strictEqual(yield* pieces({ eventsPerWrite: 4 }), 3)
      assert.strictEqual(yield* pieces({}), 1)
    })
  )

  it.effect("sees a call that undici aborts in the middle of a stream, and serves its pool again", () =>
    Effect.gen(function* () {
      const { journal, url } = yield* Simulator.make({ latency: { betweenTokens: "1 hour" } })
      const dispatcher = yield* Effect.acquireRelease(
        Effect.sync(() => new Agent({ connections: 1 })),
        (agent) => Effect.promise(() => agent.destroy())
      )
      const abort = new AbortController()
      const call = (stream: boolean, signal: AbortSignal | null) =>
        Effect.promise(() =>
          request(`${url}/chat/completions`, {
            method: "POST",
            body: JSON.stringify({ model: "m+tokens=1", messages, n: stream ? 2 : 1, stream }),
            dispatcher,
            signal
          })
        )
      const reply = yield* call(true, abort.signal)
      reply.body.on("error", () => {})
      yield* journal.awaitEntry((seen) => seen.contentEventsSent === 1)
      abort.abort()
      const left = yield* journal.awaitEntry((seen) => !seen.open)
      assert.deepStrictEqual([left.outcome, left.status], ["client-left", 200])
      const next = yield* call(false, null)
      assert.strictEqual(next.statusCode, 200)
      yield* Effect.promise(() => next.body.dump())
    })
  )

  it.effect("answers for a scenario that throws", () =>
    Effect.gen(function* () {
      const simulator = yield* Simulator.make({ scenario: Scenario.when(() => "no such word") })
      const reply = yield* Wire.exchange(simulator.port, { body: { model: "m", messages } })
      assert.deepStrictEqual([reply.status, JSON.parse(reply.body).error.type], [500, "simulator_defect"])
    })
  )

  it.effect("names the port that is taken", () =>
    Effect.gen(function* () {
      const { port } = yield* Simulator.make()
      const error = yield* Effect.flip(Simulator.make({ port }))
      assert.deepStrictEqual([error._tag, error.port], ["PortTaken", port])
      assert.include(error.message, `Port ${port} on 127.0.0.1 is taken`)
      for (const options of [{ host: "192.0.2.1" }, { port: 70_000 }, { port: Number.NaN }]) {
        const elsewhere = yield* Effect.flip(Simulator.make(options))
        assert.strictEqual(elsewhere._tag, "ListenFailed")
      }
    })
  )

  it.effect("leaves nothing open when its scope closes", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const { journal, port } = yield* Scope.provide(Simulator.make(), scope)
      yield* Wire.open(port, chat("stall:1", true))
      yield* Wire.open(port, chat("no-headers", true))
      yield* journal.awaitEntry((seen) => seen.contentEventsSent === 1)
      yield* journal.awaitEntry((seen) => seen.faults.some((fault) => fault._tag === "NoHeaders"))
      assert.deepStrictEqual([yield* journal.openRequests, yield* journal.openSockets], [2, 2])
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual([yield* journal.openRequests, yield* journal.openSockets], [0, 0])
      assert.isTrue((yield* journal.entries).every((entry) => entry.outcome === "server-closed"))
      const again = yield* Simulator.make({ port })
      assert.strictEqual(again.port, port)
    })
  )
})
