import { Call, LlmError, Usage } from "@llm/core"
import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  ConfigProvider,
  Duration,
  Effect,
  Exit,
  Fiber,
  Latch,
  Layer,
  Logger,
  Scope,
  Stream
} from "effect"
import * as KeyValueStore from "effect/persistence/KeyValueStore"
import * as Persistence from "effect/persistence/Persistence"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import type * as InvalidSetting from "@llm/core/InvalidSetting"
import * as ResponseCache from "@llm/core/ResponseCache"
import * as RedisServer from "@llm/test-servers/RedisServer"
import * as Property from "./support/Property.ts"

const call = Call.make({ provider: "openai", operation: "chat.create", model: "gpt-6-luna" })
const streamed: Call.Call = { ...call, operation: "chat.stream", stream: true }

const encoder = new TextEncoder()
const decoder = new TextDecoder()
const bytesOf = (text: string) => encoder.encode(text)
const textOf = (bytes: Uint8Array) => decoder.decode(bytes)

const usage: Usage.Usage = { ...Usage.zero, inputTokens: 12, outputTokens: 30, totalTokens: 42 }

const head = {
  status: 200,
  headers: {
    "content-type": "application/json",
    "set-cookie": "session=of-the-first-caller",
    "x-ratelimit-remaining-requests": "7"
  },
  requestId: "req_1",
  attempts: 2
} as const

const whole = (text: string): ResponseCache.Produced => ({
  _tag: "Whole",
  ...head,
  body: bytesOf(text),
  usage: () => usage
})

const events = (relay: ResponseCache.Relay): ResponseCache.Produced => ({ _tag: "Events", ...head, relay })

/** A stream of chunks, one every `gap` milliseconds, that waits where it is asked to. */
const ticking =
  (chunks: ReadonlyArray<Uint8Array>, gap: number): ResponseCache.Relay =>
  (sink) =>
    Effect.gen(function* () {
      for (const chunk of chunks) {
        yield* Effect.sleep(gap)
        if (!sink.write(chunk))
          yield* Effect.callback<void>((resume) => sink.onDrain(() => resume(Effect.void)))
      }
      return usage
    })

const broken = new LlmError.StreamInterrupted({
  provider: "openai",
  deployment: "default",
  operation: "chat.stream",
  attempts: 1,
  reason: "reset",
  partial: "half",
  events: 2
})

const overloaded = new LlmError.Overloaded({
  provider: "openai",
  deployment: "default",
  operation: "chat.create",
  attempts: 1,
  status: 503
})

type Produce = (call: Call.Call) => Effect.Effect<ResponseCache.Produced, LlmError.CallError, Scope.Scope>

/** Upstream: what it does, and how often it was asked, was left, has closed. */
class Upstream {
  started = 0
  succeeded = 0
  interrupted = 0
  closed = 0
  readonly calls: Array<Call.Call> = []
  readonly produce: Produce
  constructor(
    answer: (number: number) => Effect.Effect<ResponseCache.Produced, LlmError.CallError, Scope.Scope>
  ) {
    this.produce = (asked) =>
      Effect.suspend(() => {
        this.calls.push(asked)
        return Effect.addFinalizer((exit) =>
          Effect.sync(() => {
            this.closed++
            if (Exit.isSuccess(exit)) this.succeeded++
            else if (Cause.hasInterrupts(exit.cause)) this.interrupted++
          })
        ).pipe(Effect.andThen(answer(++this.started)))
      })
  }
}

const ask = (upstream: Upstream, request: Partial<ResponseCache.Request> = {}) =>
  Effect.flatMap(ResponseCache.ResponseCache, (cache) =>
    cache.run({ call, body: "{}", ...request }, upstream.produce)
  )

/** Reads a reply to its end. */
const read = Effect.fnUntraced(function* (reply: ResponseCache.Reply) {
  const chunks: Array<Uint8Array> = []
  if (reply._tag === "Whole") return { outcome: reply.outcome, chunks: [reply.body], usage: reply.usage() }
  const used = yield* reply.relay({
    write: (bytes) => {
      chunks.push(bytes)
      return true
    },
    onDrain: () => {}
  })
  return { outcome: reply.outcome, chunks, usage: used }
})

const askAndRead = (upstream: Upstream, request?: Partial<ResponseCache.Request>) =>
  Effect.scoped(Effect.flatMap(ask(upstream, request), read))

const outcomeOf = (upstream: Upstream, request?: Partial<ResponseCache.Request>) =>
  Effect.map(askAndRead(upstream, request), ({ outcome }) => outcome)

/** Lets a sink have a stream. */
const relayOf = Effect.fnUntraced(function* (upstream: Upstream, sink: ResponseCache.Sink) {
  const reply = yield* ask(upstream, { call: streamed })
  return reply._tag === "Events" ? yield* reply.relay(sink) : assert.fail("a stream was asked for")
})

const refreshing = Effect.provideService(ResponseCache.CacheMode, "refresh")
const bypassing = Effect.provideService(ResponseCache.CacheMode, "bypass")

const state = Effect.flatMap(ResponseCache.ResponseCache, (cache) => cache.state)

const counted = () => new Upstream((number) => Effect.succeed(whole(`answer ${number}`)))

const threeChunks = ["data: one\n\n", "data: two\n\ndata: three\n\n", "data: [DONE]\n\n"].map(bytesOf)

/** Both kinds of reply, with what makes one. */
const kinds = [
  { kind: "one-shot", of: call, answer: Effect.as(Effect.sleep(100), whole("answer")) },
  { kind: "stream", of: streamed, answer: Effect.succeed(events(ticking(threeChunks, 100))) }
] as const

describe("ResponseCache", () => {
  describe("without a Layer", () => {
    it.effect("keeps and shares nothing, and leaves the call as it is", () =>
      Effect.gen(function* () {
        const upstream = counted()
        const patient = { ...call, deadline: 1000 }
        assert.strictEqual(yield* outcomeOf(upstream, { call: patient }), "bypass")
        assert.strictEqual(yield* outcomeOf(upstream, { call: patient }), "bypass")
        assert.strictEqual(upstream.started, 2)
        assert.deepStrictEqual(upstream.calls[0], patient)
      })
    )

    it.effect("leaves the life of a stream to the caller's scope", () =>
      Effect.gen(function* () {
        const upstream = new Upstream(() => Effect.succeed(events(ticking(threeChunks, 1))))
        const scope = yield* Scope.make()
        yield* Scope.provide(ask(upstream, { call: streamed }), scope)
        assert.strictEqual(upstream.closed, 0)
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual(upstream.closed, 1)
      })
    )
  })

  describe.each(kinds)("sharing a $kind", ({ answer, of }) => {
    it.effect("makes one upstream call of a stampede of 1,000", () =>
      Effect.gen(function* () {
        const upstream = new Upstream(() => answer)
        const fibers = yield* Effect.replicateEffect(
          Effect.forkChild(askAndRead(upstream, { call: of })),
          1000
        )
        yield* TestClock.adjust("1 second")
        const replies = yield* Fiber.joinAll(fibers)
        const expected = of.stream ? threeChunks : [bytesOf("answer")]
        for (const reply of replies) {
          assert.deepStrictEqual(reply.chunks, expected)
          assert.deepStrictEqual(reply.usage, usage)
        }
        assert.strictEqual(upstream.started, 1)
        assert.strictEqual(upstream.closed, 1)
        assert.strictEqual(replies.filter(({ outcome }) => outcome === "miss").length, 1)
        assert.strictEqual(replies.filter(({ outcome }) => outcome === "shared").length, 999)
        assert.deepStrictEqual(yield* state, { entries: 0, bytes: 0, inFlight: 0 })
        yield* Effect.forkChild(askAndRead(upstream, { call: of }))
        yield* TestClock.adjust("1 second")
        assert.strictEqual(upstream.started, 2, "nothing was kept")
      }).pipe(Effect.provide(ResponseCache.layerSingleFlight()))
    )

    it.effect("goes on for the others when the first leaves", () =>
      Effect.gen(function* () {
        const upstream = new Upstream(() => answer)
        const first = yield* Effect.forkChild(askAndRead(upstream, { call: of }))
        yield* TestClock.adjust(10)
        const second = yield* Effect.forkChild(askAndRead(upstream, { call: of }))
        yield* TestClock.adjust(10)
        yield* Fiber.interrupt(first)
        yield* TestClock.adjust("1 second")
        assert.strictEqual((yield* Fiber.join(second)).outcome, "shared")
        assert.deepInclude(upstream, { started: 1, succeeded: 1, interrupted: 0 })
      }).pipe(Effect.provide(ResponseCache.layerSingleFlight()))
    )

    it.effect("is cancelled by the last who leaves, and makes place for a new one at once", () =>
      Effect.gen(function* () {
        const upstream = new Upstream(() => answer)
        const fibers = yield* Effect.replicateEffect(Effect.forkChild(askAndRead(upstream, { call: of })), 3)
        yield* TestClock.adjust(10)
        yield* Fiber.interruptAll(fibers)
        assert.deepInclude(upstream, { started: 1, interrupted: 1, closed: 1 })
        assert.strictEqual((yield* state).inFlight, 0)

        const next = yield* Effect.forkChild(askAndRead(upstream, { call: of }))
        yield* TestClock.adjust("1 second")
        assert.strictEqual((yield* Fiber.join(next)).outcome, "miss")
      }).pipe(Effect.provide(ResponseCache.layerMemory()))
    )

    it.effect("that was left is not joined while it is still closing", () =>
      Effect.gen(function* () {
        const upstream = new Upstream((number) =>
          number > 1
            ? answer
            : Effect.andThen(
                Effect.addFinalizer(() => Effect.sleep(500)),
                answer
              )
        )
        const first = yield* Effect.forkChild(askAndRead(upstream, { call: of }))
        yield* TestClock.adjust(10)
        yield* Effect.forkChild(Fiber.interrupt(first))
        yield* TestClock.adjust(10)
        assert.strictEqual(upstream.closed, 0)
        const second = yield* Effect.forkChild(askAndRead(upstream, { call: of }))
        yield* TestClock.adjust(400)
        assert.strictEqual((yield* Fiber.join(second)).outcome, "miss")
        yield* TestClock.adjust(500)
        assert.deepInclude(upstream, { started: 2, succeeded: 1, interrupted: 1, closed: 2 })
      }).pipe(Effect.provide(ResponseCache.layerMemory()))
    )

    it("completes for all who stay, whoever leaves whenever", () => {
      // Joins, leaves and the ends of flights fall on different milliseconds: nothing hangs on their order.
      const caller = fc.record({ joins: fc.nat(20), stays: fc.option(fc.nat(20), { nil: undefined }) })
      const input = fc.record({
        callers: fc.array(caller, { minLength: 1, maxLength: 8 }),
        length: fc.integer({ min: 1, max: 12 })
      })
      return Property.holdsEffect(
        input,
        ({ callers, length }) =>
          Effect.gen(function* () {
            const duration = 4 * length + 2
            const chunks = [bytesOf("a"), bytesOf("b")]
            const upstream = new Upstream(() =>
              of.stream
                ? Effect.succeed(events(ticking(chunks, duration / 2)))
                : Effect.as(Effect.sleep(duration), whole("ab"))
            )
            const plan = callers.map(({ joins, stays }) => ({
              joins: 4 * joins,
              leaves: stays === undefined ? Number.POSITIVE_INFINITY : 4 * (joins + stays) + 1
            }))
            const fibers = yield* Effect.forEach(plan, ({ joins, leaves }) =>
              Effect.forkChild(
                Effect.raceFirst(
                  Effect.delay(askAndRead(upstream, { call: of }), joins),
                  Number.isFinite(leaves) ? Effect.as(Effect.sleep(leaves), "left" as const) : Effect.never
                )
              )
            )
            for (let millis = 0; millis < 240; millis++) yield* TestClock.adjust(1)
            const results = yield* Fiber.joinAll(fibers)

            // The same, thought through: a flight lives until its end, or until the last of its members is gone.
            const order = plan
              .map((_, index) => index)
              .toSorted((one, other) => (plan[one]?.joins ?? 0) - (plan[other]?.joins ?? 0))
            const flights: Array<{ readonly ends: number; until: number }> = []
            const expected: Array<string> = []
            for (const index of order) {
              const { joins = 0, leaves = 0 } = plan[index] ?? {}
              const last = flights.at(-1)
              const flight =
                last !== undefined && joins < Math.min(last.ends, last.until)
                  ? last
                  : { ends: joins + duration, until: 0 }
              if (flight !== last) flights.push(flight)
              flight.until = Math.max(flight.until, leaves)
              expected[index] = leaves < flight.ends ? "left" : "ab"
            }
            assert.deepStrictEqual(
              results.map((result) => (result === "left" ? result : result.chunks.map(textOf).join(""))),
              expected
            )
            assert.deepInclude(upstream, {
              started: flights.length,
              succeeded: flights.filter(({ ends, until }) => until > ends).length,
              interrupted: flights.filter(({ ends, until }) => until < ends).length
            })
            assert.strictEqual((yield* state).inFlight, 0)
          }).pipe(Effect.provide(ResponseCache.layerSingleFlight())),
        60
      )
    })

    it.effect("waits for nobody longer than the caller's own deadline", () =>
      Effect.gen(function* () {
        const upstream = new Upstream(() => answer)
        const hasty = yield* Effect.forkChild(
          Effect.exit(askAndRead(upstream, { call: { ...of, deadline: 60 } }))
        )
        const patient = yield* Effect.forkChild(askAndRead(upstream, { call: { ...of, deadline: 5000 } }))
        yield* TestClock.adjust(60)
        const exit = yield* Fiber.join(hasty)
        const error = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
        if (of.stream) assert.instanceOf(error, LlmError.StreamInterrupted)
        else assert.instanceOf(error, LlmError.DeadlineExceeded)
        yield* TestClock.adjust("1 second")
        assert.strictEqual((yield* Fiber.join(patient)).outcome, "shared")
        assert.deepInclude(upstream, { started: 1, succeeded: 1 })
        assert.strictEqual(upstream.calls[0]?.deadline, undefined)
      }).pipe(Effect.provide(ResponseCache.layerMemory()))
    )
  })

  describe("failures", () => {
    it.effect("reach all who wait, and are not kept", () =>
      Effect.gen(function* () {
        const upstream = new Upstream((number) =>
          number === 1 ? Effect.delay(Effect.fail(overloaded), 100) : Effect.succeed(whole("answer"))
        )
        const fibers = yield* Effect.replicateEffect(Effect.forkChild(Effect.flip(ask(upstream))), 10)
        yield* TestClock.adjust(100)
        for (const error of yield* Fiber.joinAll(fibers)) assert.strictEqual(error, overloaded)
        assert.strictEqual(upstream.started, 1)
        assert.strictEqual(yield* outcomeOf(upstream), "miss")
        assert.strictEqual(yield* outcomeOf(upstream), "hit")
      }).pipe(Effect.scoped, Effect.provide(ResponseCache.layerMemory()))
    )

    it.effect("are nobody's answer any more once they are known", () =>
      Effect.gen(function* () {
        const upstream = new Upstream((number) =>
          number === 1 ? Effect.delay(Effect.fail(overloaded), 100) : Effect.succeed(whole("answer"))
        )
        // Both ask again at once, the first while the second has not been told yet.
        const again = Effect.catchTag(outcomeOf(upstream), "Overloaded", () => outcomeOf(upstream))
        const fibers = yield* Effect.replicateEffect(Effect.forkChild(again), 2)
        yield* TestClock.adjust(100)
        yield* Fiber.joinAll(fibers)
        assert.strictEqual(upstream.started, 2)
      }).pipe(Effect.provide(ResponseCache.layerMemory()))
    )

    it.effect("that nobody foresaw reach all, too", () =>
      Effect.gen(function* () {
        const upstream = new Upstream(() => Effect.delay(Effect.die("a bug"), 100))
        const fibers = yield* Effect.replicateEffect(Effect.forkChild(Effect.exit(ask(upstream))), 3)
        yield* TestClock.adjust(100)
        for (const exit of yield* Fiber.joinAll(fibers)) assert.deepStrictEqual(exit, Exit.die("a bug"))
        assert.strictEqual((yield* state).inFlight, 0)
      }).pipe(Effect.scoped, Effect.provide(ResponseCache.layerMemory()))
    )

    it.effect("in the middle of a stream come after what was received, to each, and nothing is kept", () =>
      Effect.gen(function* () {
        const upstream = new Upstream((number) =>
          Effect.succeed(
            events((sink) =>
              number > 1
                ? ticking(threeChunks, 0)(sink)
                : Effect.andThen(ticking(threeChunks.slice(0, 2), 100)(sink), Effect.fail(broken))
            )
          )
        )
        const follow = Effect.gen(function* () {
          const reply = yield* ask(upstream, { call: streamed })
          const chunks: Array<Uint8Array> = []
          if (reply._tag !== "Events") return assert.fail("a stream was asked for")
          const error = yield* Effect.flip(
            reply.relay({ write: (bytes) => chunks.push(bytes) > 0, onDrain: () => {} })
          )
          return { error, chunks }
        }).pipe(Effect.scoped)
        const first = yield* Effect.forkChild(follow)
        yield* TestClock.adjust(150)
        const second = yield* Effect.forkChild(follow)
        yield* TestClock.adjust(100)
        for (const { chunks, error } of yield* Fiber.joinAll([first, second])) {
          assert.strictEqual(error, broken)
          assert.deepStrictEqual(chunks, threeChunks.slice(0, 2))
        }
        assert.strictEqual((yield* state).entries, 0)
        const again = yield* Effect.forkChild(askAndRead(upstream, { call: streamed }))
        yield* TestClock.adjust(1)
        assert.strictEqual((yield* Fiber.join(again)).outcome, "miss")
        assert.strictEqual(yield* outcomeOf(upstream, { call: streamed }), "hit")
      }).pipe(Effect.provide(ResponseCache.layerMemory()))
    )

    it.effect("of one reader's sink are its own", () =>
      Effect.gen(function* () {
        const upstream = new Upstream(() => Effect.succeed(events(ticking(threeChunks, 100))))
        const clumsy = relayOf(upstream, {
          write: () => {
            throw new Error("the socket is gone")
          },
          onDrain: () => {}
        })
        const first = yield* Effect.forkChild(Effect.exit(Effect.scoped(clumsy)))
        const second = yield* Effect.forkChild(askAndRead(upstream, { call: streamed }))
        yield* TestClock.adjust("1 second")
        assert.isTrue(Exit.isFailure(yield* Fiber.join(first)))
        assert.deepStrictEqual((yield* Fiber.join(second)).chunks, threeChunks)
      }).pipe(Effect.provide(ResponseCache.layerMemory()))
    )

    it.effect("of the cache's own end interrupt who still waits", () =>
      Effect.gen(function* () {
        const upstream = new Upstream(() => Effect.never)
        const scope = yield* Scope.make()
        const services = yield* Layer.buildWithScope(ResponseCache.layerMemory(), scope)
        const waiting = yield* Effect.forkChild(Effect.provide(ask(upstream), services))
        yield* TestClock.adjust(1)
        yield* Scope.close(scope, Exit.void)
        const exit = yield* Fiber.await(waiting)
        assert.isTrue(Exit.isFailure(exit) && Cause.hasInterrupts(exit.cause))
        const late = yield* Effect.exit(Effect.provide(ask(upstream), services))
        assert.isTrue(Exit.isFailure(late) && Cause.hasInterrupts(late.cause))
        assert.strictEqual(upstream.closed, 1)
      }).pipe(Effect.scoped)
    )
  })

  describe("shared streams", () => {
    it("give everybody the same bytes in the same chunks, whenever they join, and so does the replay", () => {
      const input = fc.record({
        chunks: fc.array(fc.uint8Array({ minLength: 1, maxLength: 20 }), { minLength: 1, maxLength: 12 }),
        joins: fc.array(fc.nat(14), { minLength: 1, maxLength: 6 })
      })
      return Property.holdsEffect(input, ({ chunks, joins }) =>
        Effect.gen(function* () {
          const upstream = new Upstream(() => Effect.succeed(events(ticking(chunks, 10))))
          const fibers = yield* Effect.forEach(joins, (join) =>
            Effect.forkChild(Effect.delay(askAndRead(upstream, { call: streamed }), 10 * join + 5))
          )
          yield* TestClock.adjust("1 second")
          const replies = yield* Fiber.joinAll(fibers)
          replies.push(yield* askAndRead(upstream, { call: streamed }))
          for (const reply of replies) {
            assert.deepStrictEqual(reply.chunks, chunks)
            assert.deepStrictEqual(reply.usage, usage)
          }
          assert.strictEqual(replies.at(-1)?.outcome, "hit")
          assert.strictEqual(upstream.started, 1)
        }).pipe(Effect.provide(ResponseCache.layerMemory()))
      )
    })

    it.effect("a reader that stands still does not hold up the others, nor the store", () =>
      Effect.gen(function* () {
        const upstream = new Upstream(() => Effect.succeed(events(ticking(threeChunks, 100))))
        const stuck = relayOf(upstream, { write: () => false, onDrain: () => {} })
        const first = yield* Effect.forkChild(Effect.scoped(stuck))
        const second = yield* Effect.forkChild(askAndRead(upstream, { call: streamed }))
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual((yield* Fiber.join(second)).chunks, threeChunks)
        assert.strictEqual((yield* state).entries, 1)
        yield* Fiber.interrupt(first)
      }).pipe(Effect.provide(ResponseCache.layerMemory()))
    )

    it.effect(
      "beyond the limit are read at the pace of the fastest, cut off who is far behind, and are not kept",
      () =>
        Effect.gen(function* () {
          const chunks = Array.from({ length: 40 }, (_, at) => new Uint8Array(10).fill(at))
          let sent = 0
          const counting: ResponseCache.Relay = (sink) =>
            ticking(
              chunks,
              1
            )({
              write: (bytes) => {
                sent++
                return sink.write(bytes)
              },
              onDrain: sink.onDrain
            })
          const upstream = new Upstream(() => Effect.succeed(events(counting)))
          const runFork = Effect.runForkWith(yield* Effect.context())
          /** Takes `most` chunks, then waits for the gate. */
          const upTo = (most: number, gate: Latch.Latch) =>
            Effect.gen(function* () {
              const reply = yield* ask(upstream, { call: streamed })
              if (reply._tag !== "Events") return assert.fail("a stream was asked for")
              let taken = 0
              const wait = (listener: () => void) => {
                runFork(Effect.andThen(gate.await, Effect.sync(listener)))
              }
              yield* reply.relay({ write: () => ++taken < most, onDrain: wait })
              return taken
            }).pipe(Effect.scoped)

          const open = yield* Latch.make()
          const slowGate = yield* Latch.make()
          const fast = yield* Effect.forkChild(upTo(15, open))
          const slow = yield* Effect.forkChild(Effect.exit(upTo(2, slowGate)))
          yield* TestClock.adjust("1 second")
          // 100 bytes wait for the readers: the fastest took 150, and half the limit lies ahead of it.
          assert.strictEqual(sent, 20)
          yield* open.open
          yield* TestClock.adjust("1 second")
          yield* slowGate.open
          assert.strictEqual(yield* Fiber.join(fast), chunks.length)
          const exit = yield* Fiber.join(slow)
          const error = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
          assert.instanceOf(error, LlmError.StreamInterrupted)
          assert.deepInclude(error, { reason: "stalled", events: 2 })
          assert.deepStrictEqual(yield* state, { entries: 0, bytes: 0, inFlight: 0 })
        }).pipe(Effect.provide(ResponseCache.layerMemory({ maxReplyBytes: 100 })))
    )

    it.effect("beyond the limit are not joined any more", () =>
      Effect.gen(function* () {
        const chunks = Array.from({ length: 20 }, () => new Uint8Array(10))
        const upstream = new Upstream(() => Effect.succeed(events(ticking(chunks, 10))))
        const first = yield* Effect.forkChild(askAndRead(upstream, { call: streamed }))
        yield* TestClock.adjust(115)
        const second = yield* Effect.forkChild(askAndRead(upstream, { call: streamed }))
        yield* TestClock.adjust("1 second")
        assert.strictEqual((yield* Fiber.join(first)).chunks.length, 20)
        assert.deepInclude(yield* Fiber.join(second), { outcome: "miss", chunks })
        assert.strictEqual(upstream.started, 2)
      }).pipe(Effect.provide(ResponseCache.layerSingleFlight({ maxReplyBytes: 100 })))
    )

    it.effect("can be read as an Effect stream, no faster than it is consumed", () =>
      Effect.gen(function* () {
        const upstream = new Upstream(() => Effect.succeed(events(ticking(threeChunks, 10))))
        const asStream = Effect.flatMap(ask(upstream, { call: streamed }), (reply) =>
          reply._tag === "Events"
            ? Stream.runCollect(ResponseCache.toStream(reply.relay))
            : Effect.succeed([])
        ).pipe(Effect.scoped)
        const fiber = yield* Effect.forkChild(asStream)
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(yield* Fiber.join(fiber), threeChunks)
        assert.deepStrictEqual(yield* asStream, threeChunks)

        let written = 0
        const eager: ResponseCache.Relay = (sink) =>
          ticking(
            Array.from({ length: 50 }, () => Uint8Array.of(1)),
            0
          )({ ...sink, write: (bytes) => (written++, sink.write(bytes)) })
        const two = yield* Effect.forkChild(Stream.runCollect(Stream.take(ResponseCache.toStream(eager), 2)))
        yield* TestClock.adjust("1 second")
        assert.strictEqual((yield* Fiber.join(two)).length, 2)
        assert.isAtMost(written, 3)

        const failing = ResponseCache.toStream((sink) =>
          Effect.andThen(ticking(threeChunks, 0)(sink), Effect.fail(broken))
        )
        const seen: Array<Uint8Array> = []
        const failed = yield* Effect.forkChild(
          Effect.flip(Stream.runForEach(failing, (chunk) => Effect.sync(() => seen.push(chunk))))
        )
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* Fiber.join(failed), broken)
        assert.deepStrictEqual(seen, threeChunks)
      }).pipe(Effect.provide(ResponseCache.layerMemory()))
    )
  })

  describe("layerMemory", () => {
    it.effect("answers what was answered before, and says so", () =>
      Effect.gen(function* () {
        const upstream = counted()
        const first = yield* ask(upstream)
        assert.deepInclude(first, { outcome: "miss", attempts: 2, age: undefined, requestId: "req_1" })
        assert.deepStrictEqual(first.headers, head.headers)
        yield* TestClock.adjust("1 minute")
        const second = yield* ask(upstream)
        assert.deepInclude(second, {
          outcome: "hit",
          attempts: 0,
          age: 60_000,
          requestId: "req_1",
          status: 200
        })
        assert.deepStrictEqual(second.headers, { "content-type": "application/json" })
        assert.strictEqual(second._tag === "Whole" && textOf(second.body), "answer 1")
        assert.deepStrictEqual(second._tag === "Whole" && second.usage(), usage)
      }).pipe(Effect.scoped, Effect.provide(ResponseCache.layerMemory()))
    )

    it.effect("gives those who share a call none of the first caller's headers", () =>
      Effect.gen(function* () {
        const upstream = new Upstream(() => Effect.delay(Effect.succeed(whole("answer")), 10))
        const fibers = yield* Effect.replicateEffect(Effect.forkChild(ask(upstream)), 2)
        yield* TestClock.adjust(10)
        const [first, second] = yield* Fiber.joinAll(fibers)
        assert.deepStrictEqual(first?.headers, head.headers)
        assert.deepStrictEqual(second?.headers, { "content-type": "application/json" })
      }).pipe(Effect.scoped, Effect.provide(ResponseCache.layerMemory()))
    )

    it.effect("forgets a reply when its time is over", () =>
      Effect.gen(function* () {
        const upstream = counted()
        yield* outcomeOf(upstream)
        yield* TestClock.adjust(59_999)
        assert.strictEqual(yield* outcomeOf(upstream), "hit")
        yield* TestClock.adjust(1)
        assert.strictEqual(yield* outcomeOf(upstream), "miss")
        assert.strictEqual(yield* outcomeOf(upstream), "hit")
      }).pipe(Effect.provide(ResponseCache.layerMemory({ timeToLive: "1 minute" })))
    )

    it.effect("gives up what was longest unused when there are too many", () =>
      Effect.gen(function* () {
        const upstream = counted()
        const outcomes = yield* Effect.forEach(["1", "2", "1", "3", "1", "2"], (body) =>
          outcomeOf(upstream, { body })
        )
        assert.deepStrictEqual(outcomes, ["miss", "miss", "hit", "miss", "hit", "miss"])
        assert.strictEqual((yield* state).entries, 2)
      }).pipe(Effect.provide(ResponseCache.layerMemory({ capacity: 2 })))
    )

    it.effect("stays within its bytes", () =>
      Effect.gen(function* () {
        const upstream = new Upstream(() => Effect.succeed(whole("x".repeat(1000))))
        for (let body = 0; body < 20; body++) {
          yield* outcomeOf(upstream, { body: String(body) })
          const { bytes, entries } = yield* state
          assert.isAtMost(bytes, 5000)
          assert.isAtLeast(bytes, 1000 * entries)
        }
        assert.strictEqual(yield* outcomeOf(upstream, { body: "19" }), "hit")
        assert.strictEqual(yield* outcomeOf(upstream, { body: "0" }), "miss")
      }).pipe(Effect.provide(ResponseCache.layerMemory({ maxBytes: 5000 })))
    )

    it.effect("keeps no reply that is too large, nor one that is no success", () =>
      Effect.gen(function* () {
        const large = new Upstream(() => Effect.succeed(whole("x".repeat(101))))
        const strange = new Upstream(() => Effect.succeed({ ...whole("moved"), status: 302 }))
        assert.deepStrictEqual(yield* Effect.replicateEffect(outcomeOf(large), 2), ["miss", "miss"])
        assert.deepStrictEqual(yield* Effect.replicateEffect(outcomeOf(strange), 2), ["miss", "miss"])
      }).pipe(Effect.provide(ResponseCache.layerMemory({ maxReplyBytes: 100 })))
    )

    it.effect("does not hold on to the larger buffers that bytes came in", () =>
      Effect.gen(function* () {
        const slab = new Uint8Array(1_000_000)
        const produced = whole("")
        const upstream = new Upstream(() =>
          Effect.succeed(produced._tag === "Whole" ? { ...produced, body: slab.subarray(10, 20) } : produced)
        )
        const stream = new Upstream(() =>
          Effect.succeed(events((sink) => Effect.sync(() => (sink.write(slab.subarray(5, 9)), usage))))
        )
        for (const [from, of] of [
          [upstream, call],
          [stream, streamed]
        ] as const) {
          yield* askAndRead(from, { call: of })
          const { chunks, outcome } = yield* askAndRead(from, { call: of })
          assert.strictEqual(outcome, "hit")
          assert.isAtMost(chunks[0]?.buffer.byteLength ?? 0, 10)
        }
      }).pipe(Effect.provide(ResponseCache.layerMemory()))
    )

    it.effect("keeps tenants apart unless it is told otherwise", () =>
      Effect.gen(function* () {
        const tenants = ["acme", "umbrella", undefined, "acme", undefined]
        const outcomes = (upstream: Upstream) =>
          Effect.forEach(tenants, (tenant) => outcomeOf(upstream, { call: { ...call, tenant } }))
        assert.deepStrictEqual(yield* Effect.provide(outcomes(counted()), ResponseCache.layerMemory()), [
          "miss",
          "miss",
          "miss",
          "hit",
          "hit"
        ])
        assert.deepStrictEqual(
          yield* Effect.provide(outcomes(counted()), ResponseCache.layerMemory({ acrossTenants: true })),
          ["miss", "hit", "hit", "hit", "hit"]
        )
      })
    )

    it.effect("takes only the calls that it is told to take", () =>
      Effect.gen(function* () {
        const upstream = counted()
        const embed = { ...call, operation: "embeddings.create" }
        assert.deepStrictEqual(
          yield* Effect.forEach([call, call, embed, embed], (of) => outcomeOf(upstream, { call: of })),
          ["bypass", "bypass", "miss", "hit"]
        )
      }).pipe(
        Effect.provide(
          ResponseCache.layerMemory({ accepts: ({ operation }) => operation.startsWith("embeddings.") })
        )
      )
    )

    it.effect("forgets what it is told to forget", () =>
      Effect.gen(function* () {
        const upstream = counted()
        const cache = yield* ResponseCache.ResponseCache
        yield* outcomeOf(upstream)
        yield* cache.invalidate({ call, body: " {} " })
        assert.strictEqual(yield* outcomeOf(upstream), "miss")
      }).pipe(Effect.provide(ResponseCache.layerMemory()))
    )

    it.effect("does not keep what was asked for before it was told to forget", () =>
      Effect.gen(function* () {
        const upstream = new Upstream((number) => Effect.as(Effect.sleep(100), whole(`answer ${number}`)))
        const cache = yield* ResponseCache.ResponseCache
        const before = yield* Effect.forkChild(askAndRead(upstream))
        yield* TestClock.adjust(10)
        yield* cache.invalidate({ call, body: "{}" })
        const after = yield* Effect.forkChild(askAndRead(upstream))
        yield* TestClock.adjust(200)
        assert.deepStrictEqual((yield* Fiber.join(before)).chunks.map(textOf), ["answer 1"])
        assert.deepStrictEqual((yield* Fiber.join(after)).chunks.map(textOf), ["answer 2"])
        assert.deepStrictEqual((yield* askAndRead(upstream)).chunks.map(textOf), ["answer 2"])
      }).pipe(Effect.provide(ResponseCache.layerMemory()))
    )

    it.effect("is one for each time that it is built", () =>
      Effect.gen(function* () {
        const upstream = counted()
        yield* Effect.provide(outcomeOf(upstream), ResponseCache.layerMemory())
        assert.strictEqual(yield* Effect.provide(outcomeOf(upstream), ResponseCache.layerMemory()), "miss")
      })
    )
  })

  describe("CacheMode", () => {
    it.effect("bypass asks upstream and leaves the cache as it is", () =>
      Effect.gen(function* () {
        const upstream = counted()
        yield* outcomeOf(upstream)
        assert.strictEqual(yield* bypassing(outcomeOf(upstream)), "bypass")
        const { chunks } = yield* askAndRead(upstream)
        assert.deepStrictEqual(chunks, [bytesOf("answer 1")])
      }).pipe(Effect.provide(ResponseCache.layerMemory()))
    )

    it.effect("bypass shares nothing", () =>
      Effect.gen(function* () {
        const upstream = new Upstream(() => Effect.delay(Effect.succeed(whole("answer")), 100))
        const fibers = yield* Effect.replicateEffect(Effect.forkChild(bypassing(outcomeOf(upstream))), 3)
        yield* TestClock.adjust(100)
        assert.deepStrictEqual(yield* Fiber.joinAll(fibers), ["bypass", "bypass", "bypass"])
        assert.strictEqual(upstream.started, 3)
      }).pipe(Effect.provide(ResponseCache.layerMemory()))
    )

    it.effect("refresh asks upstream and keeps the new answer", () =>
      Effect.gen(function* () {
        const upstream = counted()
        yield* outcomeOf(upstream)
        assert.strictEqual(yield* refreshing(outcomeOf(upstream)), "miss")
        const reply = yield* askAndRead(upstream)
        assert.deepInclude(reply, { outcome: "hit", chunks: [bytesOf("answer 2")] })
      }).pipe(Effect.provide(ResponseCache.layerMemory()))
    )

    it.effect("a failed refresh leaves the old answer", () =>
      Effect.gen(function* () {
        const upstream = new Upstream((number) =>
          number === 1 ? Effect.succeed(whole("old")) : Effect.fail(overloaded)
        )
        yield* outcomeOf(upstream)
        yield* Effect.flip(refreshing(outcomeOf(upstream)))
        assert.deepInclude(yield* askAndRead(upstream), { outcome: "hit", chunks: [bytesOf("old")] })
      }).pipe(Effect.provide(ResponseCache.layerMemory()))
    )

    it.effect("refreshes share one call, which is not one that ran before them, and has the last word", () =>
      Effect.gen(function* () {
        const upstream = new Upstream((number) =>
          Effect.as(Effect.sleep(number === 1 ? 100 : 20), whole(`answer ${number}`))
        )
        const ordinary = yield* Effect.forkChild(askAndRead(upstream))
        yield* TestClock.adjust(10)
        const refreshes = yield* Effect.replicateEffect(Effect.forkChild(refreshing(askAndRead(upstream))), 3)
        yield* TestClock.adjust(10)
        const joiner = yield* Effect.forkChild(askAndRead(upstream))
        yield* TestClock.adjust(200)
        const answers = yield* Fiber.joinAll([ordinary, ...refreshes, joiner])
        assert.deepStrictEqual(
          answers.map(({ chunks }) => chunks.map(textOf).join("")),
          ["answer 1", "answer 2", "answer 2", "answer 2", "answer 2"]
        )
        assert.strictEqual(upstream.started, 2)
        assert.deepInclude(yield* askAndRead(upstream), { outcome: "hit", chunks: [bytesOf("answer 2")] })
      }).pipe(Effect.provide(ResponseCache.layerMemory()))
    )
  })

  it.effect("layerNone takes back what another Layer provides", () =>
    Effect.gen(function* () {
      const upstream = counted()
      const twice = Effect.replicateEffect(outcomeOf(upstream), 2)
      assert.deepStrictEqual(yield* Effect.provide(twice, ResponseCache.layerNone), ["bypass", "bypass"])
    }).pipe(Effect.provide(ResponseCache.layerMemory()))
  )

  /** What every store has to do, whatever it is made of. */
  const contract = (
    name: string,
    layer: (
      options: ResponseCache.KeepingOptions
    ) => Effect.Effect<Layer.Layer<never, InvalidSetting.InvalidSetting>, never, Scope.Scope>
  ) =>
    describe(`over ${name}`, () => {
      const anyBytes = Uint8Array.from({ length: 256 }, (_, byte) => byte)
      const within = <A, E>(
        test: Effect.Effect<A, E, Scope.Scope>,
        options: ResponseCache.KeepingOptions = {}
      ) => Effect.scoped(Effect.flatMap(layer(options), (built) => Effect.provide(test, built)))

      it.effect("replays a reply to the byte, with its usage and what is true of it later", () =>
        within(
          Effect.gen(function* () {
            const produced = whole("")
            const upstream = new Upstream(() =>
              Effect.succeed(produced._tag === "Whole" ? { ...produced, body: anyBytes } : produced)
            )
            yield* settled(askAndRead(upstream))
            const reply = yield* settled(ask(upstream))
            assert.deepInclude(reply, { outcome: "hit", status: 200, requestId: "req_1", attempts: 0 })
            assert.deepStrictEqual(reply.headers, { "content-type": "application/json" })
            const { chunks, usage: used } = yield* read(reply)
            assert.deepStrictEqual(
              chunks.map((chunk) => [...chunk]),
              [[...anyBytes]]
            )
            assert.deepStrictEqual(used, usage)
          })
        )
      )

      it.effect("replays a stream as a stream, chunk by chunk", () =>
        within(
          Effect.gen(function* () {
            const chunks = [anyBytes, Uint8Array.of(), anyBytes.subarray(7, 9)]
            const upstream = new Upstream(() =>
              Effect.succeed(events((sink) => Effect.sync(() => (chunks.forEach(sink.write), usage))))
            )
            yield* settled(askAndRead(upstream, { call: streamed }))
            const reply = yield* settled(askAndRead(upstream, { call: streamed }))
            assert.strictEqual(reply.outcome, "hit")
            assert.deepStrictEqual(
              reply.chunks.map((chunk) => [...chunk]),
              chunks.map((chunk) => [...chunk])
            )
            assert.deepStrictEqual(reply.usage, usage)
          })
        )
      )

      it.effect("keeps a reply without usage or request id", () =>
        within(
          Effect.gen(function* () {
            const produced = whole("answer")
            const upstream = new Upstream(() =>
              Effect.succeed(
                produced._tag === "Whole"
                  ? { ...produced, requestId: undefined, usage: () => undefined }
                  : produced
              )
            )
            yield* settled(askAndRead(upstream))
            assert.deepInclude(yield* settled(askAndRead(upstream)), { outcome: "hit", usage: undefined })
          })
        )
      )

      it.effect("keeps tenants and requests apart, forgets on demand, and lets a refresh replace", () =>
        within(
          Effect.gen(function* () {
            const upstream = counted()
            const outcomes: Array<string> = []
            const note = Effect.fnUntraced(function* (request: Partial<ResponseCache.Request>) {
              outcomes.push(yield* settled(outcomeOf(upstream, request)))
            })
            yield* note({})
            yield* note({ body: `{"seed":1}` })
            yield* note({ call: { ...call, tenant: "acme" } })
            yield* note({})
            const cache = yield* ResponseCache.ResponseCache
            yield* cache.invalidate({ call, body: "{}" })
            yield* note({})
            yield* refreshing(note({}))
            assert.deepStrictEqual(outcomes, ["miss", "miss", "miss", "hit", "miss", "miss"])
            assert.deepStrictEqual((yield* settled(askAndRead(upstream))).chunks.map(textOf), ["answer 5"])
          })
        )
      )

      it.effect("keeps no failure and no part of a stream", () =>
        within(
          Effect.gen(function* () {
            const failing = new Upstream(() => Effect.fail(overloaded))
            const cut = new Upstream(() =>
              Effect.succeed(
                events((sink) =>
                  Effect.andThen(
                    Effect.sync(() => sink.write(anyBytes)),
                    Effect.fail(broken)
                  )
                )
              )
            )
            for (let time = 1; time <= 2; time++) {
              yield* Effect.flip(settled(askAndRead(failing)))
              yield* Effect.flip(settled(askAndRead(cut, { call: streamed })))
              assert.deepStrictEqual([failing.started, cut.started], [time, time])
            }
          })
        )
      )

      it.effect("makes one upstream call of a stampede of 1,000", () =>
        within(
          Effect.gen(function* () {
            const gate = yield* Latch.make()
            const upstream = new Upstream(() => Effect.as(gate.await, whole("answer")))
            const fibers = yield* Effect.replicateEffect(Effect.forkChild(outcomeOf(upstream)), 1000)
            yield* Effect.forkChild(gate.open)
            const outcomes = yield* Fiber.joinAll(fibers)
            assert.strictEqual(upstream.started, 1)
            assert.strictEqual(outcomes.filter((outcome) => outcome === "shared").length, 999)
          })
        )
      )
    })

  /** What a store elsewhere still has to do when the answer is there already. */
  const settled = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.tap(effect, () => Effect.repeat(state, { until: ({ inFlight }) => inFlight === 0 }))

  contract("memory", (options) => Effect.succeed(ResponseCache.layerMemory(options)))
  contract("a key-value store", (options) =>
    Effect.succeed(Layer.provide(ResponseCache.layerKeyValueStore(options), KeyValueStore.layerMemory))
  )
  contract("any persistence", (options) =>
    Effect.succeed(Layer.provide(ResponseCache.layerPersisted(options), Persistence.layerMemory))
  )

  let caches = 0
  /** A cache over Redis that shares its entries with no other test. */
  const overRedis = (
    redis: Effect.Success<typeof RedisServer.make>,
    options: ResponseCache.PersistedOptions = {}
  ) =>
    Layer.provide(
      ResponseCache.layerRedis({
        name: `llm_test_${process.pid}_${++caches}`,
        timeout: "10 seconds",
        ...options
      }),
      redis.layer
    )

  it("has a Redis to run over", ({ skip }) => {
    const reason = "there is no Redis: install redis-server, or set LLM_TEST_REDIS_URL"
    skip(RedisServer.found === undefined && process.env["CI"] !== "true", reason)
    assert.isDefined(RedisServer.found, reason)
  })

  describe.runIf(RedisServer.found !== undefined)("with a server", () => {
    contract("Redis", (options) => Effect.map(RedisServer.make, (redis) => overRedis(redis, options)))

    describe("over Redis, besides", () => {
      it.effect("lets Redis forget a reply when its time is over", () =>
        Effect.gen(function* () {
          const redis = yield* RedisServer.make
          const name = `llm_test_${process.pid}_ttl`
          yield* Effect.provide(
            settled(outcomeOf(counted())),
            overRedis(redis, { name, timeToLive: "5 minutes" })
          )
          const [key = ""] = yield* redis.send<ReadonlyArray<string>>("KEYS", `${name}:*`)
          const left = yield* redis.send<number>("PTTL", key)
          assert.isAbove(left, 0)
          assert.isAtMost(left, 300_000)
          assert.notInclude(key, "gpt", "a key is a hash")
        }).pipe(Effect.scoped)
      )

      it.effect("is one cache for all processes", () =>
        Effect.gen(function* () {
          const redis = yield* RedisServer.make
          const name = `llm_test_${process.pid}_shared`
          const upstream = counted()
          const process1 = Effect.provide(settled(outcomeOf(upstream)), overRedis(redis, { name }))
          assert.strictEqual(yield* process1, "miss")
          assert.strictEqual(yield* Effect.provide(outcomeOf(upstream), overRedis(redis, { name })), "hit")
        }).pipe(Effect.scoped)
      )

      it.effect.runIf(RedisServer.found === "binary")("goes on without when Redis is killed", () =>
        Effect.gen(function* () {
          const redis = yield* RedisServer.make
          const upstream = counted()
          yield* Effect.gen(function* () {
            assert.strictEqual(yield* settled(outcomeOf(upstream)), "miss")
            assert.strictEqual(yield* settled(outcomeOf(upstream)), "hit")
            yield* redis.kill
            assert.strictEqual(yield* settled(outcomeOf(upstream)), "miss")
            assert.strictEqual(yield* settled(outcomeOf(upstream)), "miss")
          }).pipe(Effect.provide(overRedis(redis)))
        }).pipe(Effect.scoped, Effect.provide(Logger.layer([])))
      )
    })
  })

  describe("layerPersisted", () => {
    /** A store of which a test says what it does. */
    class Backing {
      reads = 0
      writes = 0
      read: Effect.Effect<object | undefined, Persistence.PersistenceError> = Effect.succeed(undefined)
      write: Effect.Effect<void, Persistence.PersistenceError> = Effect.void
      timeToLive: number | undefined
      value: object | undefined
      readonly layer: Layer.Layer<Persistence.Persistence>
      constructor() {
        this.layer = Layer.provide(
          Persistence.layer,
          Layer.succeed(Persistence.BackingPersistence, {
            make: () =>
              Effect.succeed({
                get: () =>
                  Effect.suspend(() => {
                    this.reads++
                    return this.read
                  }),
                set: (_key, value, timeToLive) =>
                  Effect.suspend(() => {
                    this.writes++
                    this.value = value
                    this.timeToLive = timeToLive === undefined ? undefined : Duration.toMillis(timeToLive)
                    return this.write
                  }),
                getMany: () => Effect.die("unused"),
                setMany: () => Effect.die("unused"),
                remove: () => Effect.suspend(() => this.write),
                clear: Effect.void
              })
          })
        )
      }
    }

    const silently = Effect.provide(Logger.layer([]))
    const over = (backing: Backing, options?: ResponseCache.PersistedOptions) =>
      Layer.provide(ResponseCache.layerPersisted(options), backing.layer)

    const dead = [
      ["fails", Effect.fail(new Persistence.PersistenceError({ message: "connection refused" }))],
      ["dies", Effect.die(new Error("a bug of the driver"))]
    ] as const

    it.effect.each(dead)(
      "a store that %s is a miss, is left alone for a second, and never an error",
      ([, failure]) =>
        Effect.gen(function* () {
          const backing = new Backing()
          backing.read = failure
          backing.write = failure
          const upstream = counted()
          yield* Effect.gen(function* () {
            for (let time = 1; time <= 5; time++)
              assert.strictEqual(yield* settled(outcomeOf(upstream)), "miss")
            assert.deepInclude(backing, { reads: 1, writes: 1 })
            yield* TestClock.adjust(1249)
            yield* settled(outcomeOf(upstream))
            assert.deepInclude(backing, { reads: 1, writes: 1 })
            yield* TestClock.adjust(1)
            yield* settled(outcomeOf(upstream))
            assert.deepInclude(backing, { reads: 2, writes: 2 })
            const cache = yield* ResponseCache.ResponseCache
            yield* cache.invalidate({ call, body: "{}" })
          }).pipe(Effect.provide(over(backing)))
          assert.strictEqual(upstream.started, 7)
        }).pipe(silently)
    )

    it.effect("a store that says nothing holds a call up for the timeout, once", () =>
      Effect.gen(function* () {
        const backing = new Backing()
        backing.read = Effect.never
        const upstream = counted()
        yield* Effect.gen(function* () {
          const first = yield* Effect.forkChild(outcomeOf(upstream))
          yield* TestClock.adjust(99)
          assert.strictEqual(upstream.started, 0)
          yield* TestClock.adjust(1)
          assert.strictEqual(yield* Fiber.join(first), "miss")
          assert.strictEqual(yield* outcomeOf(upstream), "miss")
          assert.strictEqual(backing.reads, 1)
        }).pipe(Effect.provide(over(backing, { timeout: 100 })))
      }).pipe(silently)
    )

    it.effect("nobody waits until a reply is written, and meanwhile it is found", () =>
      Effect.gen(function* () {
        const backing = new Backing()
        backing.write = Effect.never
        const upstream = counted()
        yield* Effect.gen(function* () {
          assert.strictEqual(yield* outcomeOf(upstream), "miss")
          assert.strictEqual(yield* outcomeOf(upstream), "shared")
          yield* TestClock.adjust(250)
          assert.strictEqual((yield* state).inFlight, 0)
          assert.strictEqual(upstream.started, 1)
          assert.strictEqual(upstream.closed, 1)
        }).pipe(Effect.provide(over(backing)))
      }).pipe(silently)
    )

    it.effect("an entry that cannot be read is a miss, and the new reply takes its place", () =>
      Effect.gen(function* () {
        const backing = new Backing()
        const upstream = counted()
        yield* Effect.gen(function* () {
          for (const rotten of [
            {},
            { _tag: "Success", value: { _tag: "Whole", status: "?" } },
            { _tag: "Interrupt" }
          ]) {
            backing.read = Effect.succeed(rotten)
            assert.strictEqual(yield* settled(outcomeOf(upstream)), "miss")
          }
          assert.deepInclude(backing, { reads: 3, writes: 3 })
          backing.read = Effect.sync(() => JSON.parse(JSON.stringify(backing.value)))
          assert.deepInclude(yield* askAndRead(upstream), { outcome: "hit", chunks: [bytesOf("answer 3")] })
        }).pipe(Effect.provide(over(backing)))
      }).pipe(silently)
    )

    it.effect("tells the store how long a reply is good for", () =>
      Effect.gen(function* () {
        const backing = new Backing()
        yield* Effect.provide(settled(outcomeOf(counted())), over(backing, { timeToLive: "5 minutes" }))
        assert.strictEqual(backing.timeToLive, 300_000)
      })
    )

    it.effect("those who wait for one look into the store share what it finds", () =>
      Effect.gen(function* () {
        const backing = new Backing()
        const upstream = counted()
        yield* Effect.gen(function* () {
          yield* settled(outcomeOf(upstream))
          backing.read = Effect.delay(
            Effect.sync(() => JSON.parse(JSON.stringify(backing.value))),
            100
          )
          const fibers = yield* Effect.replicateEffect(Effect.forkChild(outcomeOf(upstream)), 5)
          yield* TestClock.adjust(100)
          assert.deepStrictEqual(
            yield* Fiber.joinAll(fibers),
            Array.from({ length: 5 }, () => "hit")
          )
          assert.strictEqual(backing.reads, 2)
        }).pipe(Effect.provide(over(backing)))
      })
    )
  })

  describe("settings that cannot be", () => {
    const messageOf = <A>(layer: Layer.Layer<A, InvalidSetting.InvalidSetting>) =>
      Effect.map(Effect.flip(Effect.scoped(Layer.build(layer))), ({ message }) => message)

    const persisted = (options: ResponseCache.PersistedOptions) =>
      Layer.provide(ResponseCache.layerPersisted(options), Persistence.layerMemory)

    it.effect.each([
      [
        ResponseCache.layerMemory({ capacity: 0 }),
        "ResponseCache.layerMemory: capacity is 0; allowed is a whole number from 1 to 10000000"
      ],
      [ResponseCache.layerMemory({ maxBytes: -1 }), "ResponseCache.layerMemory: maxBytes is -1;"],
      [ResponseCache.layerMemory({ maxReplyBytes: 1.5 }), "ResponseCache.layerMemory: maxReplyBytes is 1.5;"],
      [
        ResponseCache.layerMemory({ timeToLive: 0 }),
        "ResponseCache.layerMemory: timeToLive is 0; allowed is a duration of at least 1 ms"
      ],
      [
        ResponseCache.layerMemory({ timeToLive: Number.NaN }),
        "ResponseCache.layerMemory: timeToLive is NaN;"
      ],
      [
        ResponseCache.layerSingleFlight({ maxReplyBytes: 0 }),
        "ResponseCache.layerSingleFlight: maxReplyBytes is 0;"
      ],
      [persisted({ timeout: -1 }), "ResponseCache.layerPersisted: timeout is -1;"],
      [persisted({ rest: -5 }), "ResponseCache.layerPersisted: rest is -5;"]
    ] as const)("fail at start: %#", ([layer, expected]) =>
      Effect.map(messageOf(layer), (message) => assert.isTrue(message.startsWith(expected), message))
    )
  })

  describe("layerConfig", () => {
    const outcomesWith = (env: Record<string, string>) =>
      Effect.provide(
        Effect.replicateEffect(outcomeOf(counted()), 2),
        Layer.provide(ResponseCache.layerConfig, ConfigProvider.layer(ConfigProvider.fromEnv({ env })))
      )

    it.effect("keeps nothing unless it is told to", () =>
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* outcomesWith({}), ["bypass", "bypass"])
        assert.deepStrictEqual(yield* outcomesWith({ LLM_CACHE: "single-flight" }), ["miss", "miss"])
        const memory = {
          LLM_CACHE: "memory",
          LLM_CACHE_TTL: "5 minutes",
          LLM_CACHE_ENTRIES: "5",
          LLM_CACHE_BYTES: "2 MiB"
        }
        assert.deepStrictEqual(yield* outcomesWith(memory), ["miss", "hit"])
      })
    )

    it.effect.each([
      { LLM_CACHE: "redis" },
      { LLM_CACHE: "memory", LLM_CACHE_ENTRIES: "0" },
      { LLM_CACHE: "memory", LLM_CACHE_TTL: "soon" }
    ])("fails for %j", (env) =>
      Effect.flip(outcomesWith(env)).pipe(Effect.map((error) => assert.isNotEmpty(error.message)))
    )
  })
})
