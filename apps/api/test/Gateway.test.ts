import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { Fault, Scenario } from "@llm/simulator"
import { APIError, APIUserAbortError } from "openai"
import * as Http from "node:http"
import * as HeldUpstream from "./support/HeldUpstream.ts"
import * as LargeUpstream from "./support/LargeUpstream.ts"
import * as RawConnection from "./support/RawConnection.ts"
import * as RunningGateway from "./support/RunningGateway.ts"

const { eventually, question } = RunningGateway

/** Node's own count of what is open in this process. */
const openHandles = (): number =>
  process.getActiveResourcesInfo().filter((name) => /^(?:TCP|Timeout|GetAddrInfo)/u.test(name)).length

/** Much is done at once here, perhaps on a busy machine. */
const patience = 30_000

describe("200 calls at once while 30 % of the attempts fail", () => {
  const calls = 200
  const tokens = 12
  /** Retries of the default settings: `LLM_RETRY_TIMES`. */
  const retries = 6
  /** What the default retry budget holds at first, and what each call adds. */
  const budget = 100 + 0.2 * calls

  /** What a call may end in: an error as status and code (0: inside of a stream), or the whole answer. */
  type End = "answer" | `${number} ${string}`
  /** What a fault does to an attempt: it is tried again, or it is the end. More than one where it is a matter of timing. */
  type Effects = ReadonlyArray<"again" | End>
  const again: Effects = ["again"]
  const harmless: Effects = ["answer"]
  const brokenOff: Effects = ["0 stream_interrupted"]
  /** The break may come in the same packet as the first words, and then nothing was given out yet. */
  const either: Effects = ["again", "0 stream_interrupted"]

  const faults: ReadonlyArray<readonly [fault: string, oneShot: Effects, streamed: Effects]> = [
    ["status:500", again, again],
    ["status:502;html", again, again],
    ["status:503;retry-after-ms=5", again, again],
    ["status:529", again, again],
    ["status:429;retry-after-ms=5", again, again],
    ["status:429;reset-requests=10ms", again, again],
    ["status:429;retry-after=120", ["429 rate_limit_exceeded"], ["429 rate_limit_exceeded"]],
    ["status:429;code=insufficient_quota", ["429 insufficient_quota"], ["429 insufficient_quota"]],
    [
      "status:400;code=context_length_exceeded",
      ["400 context_length_exceeded"],
      ["400 context_length_exceeded"]
    ],
    ["status:408", again, again],
    ["status:409", again, again],
    ["reset:headers", again, again],
    ["close:headers", again, again],
    ["reset:4", again, either],
    ["cut:0", again, again],
    ["cut:4", again, either],
    ["cut:4;abrupt", again, either],
    ["truncated-body", again, either],
    ["stall:4", again, brokenOff],
    ["error-event:0", again, again],
    ["error-event:4", again, ["again", "0 null"]],
    ["error-event:4;code=rate_limit_exceeded;nested", again, ["again", "0 rate_limit_exceeded"]],
    ["bad-json:0", again, again],
    ["bad-json:4", again, either],
    ["html", again, again],
    ["empty", again, again],
    ["error-200", again, again],
    ["slow-headers:100ms", harmless, harmless],
    ["slow-body:5ms", harmless, harmless],
    ["split:3,chunked:crlf", harmless, harmless],
    ["ping:2,bom", harmless, harmless],
    ["no-done", harmless, harmless]
  ]
  const effectsOf = (text: string, stream: boolean): Effects => {
    const [, oneShot, streamed] = faults.find(([fault]) => fault === text) ?? ["", harmless, harmless]
    return stream ? streamed : oneShot
  }

  /** Which fault the k-th attempt of the n-th call meets: decided by the seed, not by who comes first. */
  const draw = (seed: number) => {
    const decide = Scenario.probability(
      0.3,
      faults.map(([fault]) => fault),
      { seed }
    ).start()
    const request = {
      method: "POST",
      path: "",
      model: undefined,
      stream: false,
      body: undefined,
      headers: {},
      key: undefined,
      elapsed: 0
    }
    return (call: number, attempt: number) => decide({ ...request, attempt, number: call * 100 + attempt })
  }
  const named = new Map(faults.map(([fault]) => [JSON.stringify(Fault.fromInput(fault)), fault]))

  const numberOf = (body: unknown): number => {
    const match = /"Question (\d+)/u.exec(JSON.stringify(body))
    return Number(match?.[1])
  }

  it.live(
    "each ends in the right answer or in the right error, and nothing is left behind",
    () =>
      Effect.gen(function* () {
        const faultOf = draw(7)
        /** All the ends that the n-th call can have. */
        const endsOf = (call: number, stream: boolean): ReadonlySet<End> => {
          const ends = new Set<End>()
          for (let attempt = 0; attempt <= retries; attempt++) {
            const drawn = faultOf(call, attempt)
            const effects = effectsOf(named.get(JSON.stringify(drawn)) ?? "", stream)
            for (const effect of effects) if (effect !== "again") ends.add(effect)
            if (!effects.includes("again")) return ends
          }
          throw new Error(`the plan of call ${call} uses up all retries: choose another seed`)
        }

        const handlesBefore = openHandles()
        /** Told when the upstream has a call's request. */
        const arrivals = new Map<number, () => void>()
        const gateway = yield* RunningGateway.make({
          settings: { LLM_TIMEOUT_IDLE: "2 seconds" },
          simulator: {
            tokensPerReply: tokens,
            scenario: Scenario.when(({ attempt, body }) => {
              arrivals.get(numberOf(body))?.()
              return faultOf(numberOf(body), attempt)
            })
          }
        })
        const { journal } = gateway.simulator
        const client = gateway.client()
        const upstream = gateway.client({ baseURL: gateway.simulator.url })
        const wellBehaved = { headers: { "x-sim-fault": "" } }
        const asked = (call: number) => question(`Question ${call}: why is the sky blue?`)

        const oneShot = async (call: number): Promise<End> => {
          const expected = await upstream.chat.completions.create(asked(call), wellBehaved)
          const reply = await client.chat.completions.create(asked(call))
          assert.deepStrictEqual(reply, expected)
          return "answer"
        }

        const streamed = async (call: number): Promise<End> => {
          const expected = await upstream.chat.completions.create(asked(call), wellBehaved)
          const stream = await client.chat.completions.create({ ...asked(call), stream: true })
          let text = ""
          let finish: string | null = null
          for await (const chunk of stream) {
            const [choice] = chunk.choices
            text += choice?.delta.content ?? ""
            finish = choice?.finish_reason ?? finish
          }
          // A stream that ends without an error is whole.
          assert.strictEqual(finish, "stop")
          assert.strictEqual(text, expected.choices[0]?.message.content)
          return "answer"
        }

        const run = (call: number) =>
          Effect.gen(function* () {
            const stream = call % 2 === 0
            const end = yield* Effect.tryPromise({
              try: () => (stream ? streamed(call) : oneShot(call)),
              catch: (cause) => cause
            }).pipe(
              Effect.catch((error) => {
                if (!(error instanceof APIError) || error.constructor.name === "APIConnectionError")
                  throw error
                return Effect.succeed<End>(`${error.status ?? 0} ${error.code}`)
              })
            )
            const expected = endsOf(call, stream)
            assert.isTrue(
              expected.has(end),
              `call ${call} ended in ${end}, not in ${[...expected].join(" or ")}`
            )
            return end
          })

        /** Leaves midway: after the first words of a stream, or once the upstream has the request. */
        const cancelled = (call: number) =>
          Effect.gen(function* () {
            const controller = new AbortController()
            const { signal } = controller
            if (call % 2 === 0) {
              const headers = { "x-sim-fault": "stall:3,heartbeat:100ms" }
              const stream = yield* Effect.promise(() =>
                client.chat.completions.create({ ...asked(call), stream: true }, { headers, signal })
              )
              yield* Effect.promise(async () => {
                for await (const chunk of stream) if (chunk.choices[0]?.delta.content) break
              })
            } else {
              const headers = { "x-sim-fault": "no-headers" }
              arrivals.set(call, () => controller.abort())
              const reply = client.chat.completions.create(asked(call), { headers, signal })
              const failure = Effect.tryPromise({ try: () => reply, catch: (cause) => cause })
              assert.instanceOf(yield* Effect.flip(failure), APIUserAbortError)
            }
          })

        const leaves = (call: number) => call % 10 >= 8
        const ends: Array<End> = []
        yield* Effect.forEach(
          Array.from({ length: calls }, (_, call) => call),
          (call) => (leaves(call) ? cancelled(call) : Effect.map(run(call), (end) => ends.push(end))),
          { concurrency: "unbounded", discard: true }
        )

        assert.lengthOf(ends, 160)
        assert.isAbove(ends.filter((end) => end === "answer").length, 120)
        assert.isAbove(ends.filter((end) => end !== "answer").length, 5)

        // Nothing but their client's leaving ends the cancelled ones.
        yield* journal.awaitIdle
        const entries = (yield* journal.entries).filter((entry) => entry.headers["x-sim-fault"] !== "")
        const attempts = Map.groupBy(entries, ({ body }) => numberOf(body))
        for (const [call, made] of attempts) {
          if (leaves(call)) assert.deepStrictEqual([made.length, made[0]?.outcome], [1, "client-left"])
          // Every attempt is numbered, and none is made twice.
          assert.deepStrictEqual(
            made.map(({ attempt }) => attempt),
            made.map((_, index) => index)
          )
        }
        assert.isAtMost(entries.length, calls + budget)
        const kinds = new Set(entries.flatMap((entry) => named.get(JSON.stringify(entry.faults)) ?? []))
        const failed = entries.filter((entry) => named.has(JSON.stringify(entry.faults)))
        assert.isAbove(failed.length, 0.2 * (entries.length - (calls - ends.length)))
        assert.isAtLeast(kinds.size, 25)

        // Nothing is left behind.
        yield* eventually(() => gateway.fibers() === 0)
        assert.strictEqual(yield* journal.openRequests, 0)
        yield* gateway.stop
        assert.isFalse(yield* RawConnection.accepts(gateway.port))
        yield* journal.awaitNoSockets
        assert.strictEqual(yield* journal.openSockets, 0)
        return { gateway, handlesBefore }
      }).pipe(
        Effect.scoped,
        // The simulator is closed as well: what was open before is all that is open now.
        Effect.flatMap(({ handlesBefore }) => eventually(() => openHandles() <= handlesBefore))
      ),
    patience
  )

  it.live(
    "an outage costs no more attempts than the retry budget allows",
    () =>
      Effect.gen(function* () {
        const retried: Array<number> = []
        const started = performance.now()
        const { client, simulator } = yield* RunningGateway.make({
          onRetry: ({ wait }) => void retried.push(wait)
        })
        yield* simulator.script(Scenario.always("status:500"))
        const codes = yield* Effect.forEach(
          Array.from({ length: calls }),
          () =>
            Effect.tryPromise({
              try: () => client().chat.completions.create(question()),
              catch: (cause) => (cause instanceof APIError ? cause.code : String(cause))
            }).pipe(Effect.flip),
          { concurrency: "unbounded" }
        )
        const perSecond = (10 * (performance.now() - started)) / 1000
        const entries = yield* simulator.journal.entries
        assert.isAtMost(entries.length, calls + budget + perSecond)
        assert.strictEqual(retried.length, entries.length - calls)
        assert.sameMembers([...new Set(codes)], [null, "retry_budget_exhausted"])
      }),
    patience
  )

  it.live(
    "an outage is left alone once the circuit is open",
    () =>
      Effect.gen(function* () {
        const { client, simulator } = yield* RunningGateway.make({
          settings: { LLM_BREAKER: "consecutive", LLM_BREAKER_FAILURES: "5" }
        })
        yield* simulator.script(Scenario.always("status:500"))
        const call = () =>
          Effect.tryPromise({
            try: () => client({ maxRetries: 0 }).chat.completions.create(question()),
            catch: (cause) => (cause instanceof APIError ? `${cause.status} ${cause.code}` : String(cause))
          }).pipe(Effect.flip)
        const ends = yield* Effect.forEach(Array.from({ length: calls }), call, { concurrency: 10 })
        const entries = yield* simulator.journal.entries
        // Five failures open it; those that were on their way by then come through.
        assert.isAtMost(entries.length, 5 + 10)
        assert.isAbove(ends.filter((end) => end === "503 circuit_open").length, calls - 20)
      }),
    patience
  )
})

describe("shutdown", () => {
  const streamRequest = RawConnection.request("POST", "/v1/chat/completions", {
    body: { ...question(), stream: true }
  })

  it.live("lets running streams end, and takes nothing new", () =>
    Effect.gen(function* () {
      const held = yield* HeldUpstream.make
      const gateway = yield* RunningGateway.make({ settings: { OPENAI_BASE_URL: held.url } })
      const stream = yield* Effect.promise(() =>
        gateway.client().chat.completions.create({ ...question(), stream: true })
      )
      const chunks = stream[Symbol.asyncIterator]()
      const first = yield* Effect.promise(() => chunks.next())
      assert.strictEqual(first.value?.choices[0]?.delta.content, HeldUpstream.words[0])

      const readiness = RawConnection.request("GET", "/readyz")
      const busy = yield* RawConnection.make(gateway.port)
      yield* busy.write(readiness)
      yield* busy.shows('{"status":"ready"}')
      yield* busy.write(streamRequest)
      yield* busy.shows(`"${HeldUpstream.words[0]}"`)

      const stopping = yield* Effect.forkChild(gateway.stop)
      while (yield* RawConnection.accepts(gateway.port)) yield* Effect.yieldNow
      // A connection with a running stream is still open: what it asks for now is answered behind the stream.
      yield* busy.write(
        readiness + RawConnection.request("POST", "/v1/chat/completions", { body: question() })
      )
      // One more round trip of anybody's, and the gateway has read it.
      assert.isFalse(yield* RawConnection.accepts(gateway.port))
      assert.isUndefined(stopping.pollUnsafe())

      yield* held.release
      let text = HeldUpstream.words[0] ?? ""
      let finish: string | null = null
      yield* Effect.promise(async () => {
        for (let next = await chunks.next(); next.done !== true; next = await chunks.next()) {
          text += next.value.choices[0]?.delta.content ?? ""
          finish = next.value.choices[0]?.finish_reason ?? finish
        }
      })
      assert.strictEqual(text, HeldUpstream.words.join(""))
      assert.strictEqual(finish, "stop")

      const all = yield* busy.ended
      const [, behind = ""] = all.split("data: [DONE]")
      assert.deepStrictEqual(
        Array.from(behind.matchAll(/HTTP\/1\.1 (\d+)/gu), ([, status]) => status),
        ["503", "503"]
      )
      assert.include(behind, '{"status":"draining"}')
      assert.include(behind, '"code":"shutting_down"')
      assert.match(behind, /^connection: close\r$/mu)
      yield* Fiber.join(stopping)
      yield* eventually(() => gateway.allFibers() === 0)
    })
  )

  it.live("waits for nobody where nothing runs, though clients keep their connections", () =>
    Effect.gen(function* () {
      const gateway = yield* RunningGateway.make()
      const idle = yield* RawConnection.make(gateway.port)
      yield* idle.write(RawConnection.request("GET", "/healthz"))
      yield* idle.shows('{"status":"ok"}')
      const silent = yield* RawConnection.make(gateway.port)
      yield* gateway.stop
      yield* idle.ended
      yield* silent.ended
      assert.isFalse(yield* RawConnection.accepts(gateway.port))
    })
  )

  /** A whole reply of more than the kernel holds for a connection that nobody reads; it is not read. */
  const largeReply = (origin: string) =>
    Effect.callback<Http.IncomingMessage>((resume) => {
      const options = { method: "POST", agent: false }
      const request = Http.request(`${origin}/v1/chat/completions`, options, (incoming) =>
        resume(Effect.succeed(incoming))
      )
      request.on("error", (error) => resume(Effect.die(error)))
      request.end(JSON.stringify(question()))
    })

  it.live(
    "waits for a slow reader of a whole reply",
    () =>
      Effect.gen(function* () {
        const gateway = yield* RunningGateway.make({
          settings: { OPENAI_BASE_URL: yield* LargeUpstream.make }
        })
        const reply = yield* largeReply(gateway.origin)
        const stopping = yield* Effect.forkChild(gateway.stop)
        while (yield* RawConnection.accepts(gateway.port)) yield* Effect.yieldNow
        let size = 0
        yield* Effect.promise(async () => {
          for await (const chunk of reply) size += Buffer.from(chunk).length
        })
        assert.isAbove(size, 7_000_000)
        assert.strictEqual(String(size), reply.headers["content-length"])
        yield* Fiber.join(stopping)
      }),
    patience
  )

  it.live(
    "waits no longer than its time for one who never reads",
    () =>
      Effect.gen(function* () {
        const settings = { OPENAI_BASE_URL: yield* LargeUpstream.make }
        const gateway = yield* RunningGateway.make({ settings, drainTime: "50 millis" })
        const reply = yield* largeReply(gateway.origin)
        yield* gateway.stop
        const left = Effect.asVoid(Effect.tryPromise({ try: () => reply.toArray(), catch: (cause) => cause }))
        assert.instanceOf(yield* Effect.flip(left), Error)
      }),
    patience
  )

  it.live("breaks streams off that outlast it, and never as if they were whole", () =>
    Effect.gen(function* () {
      const gateway = yield* RunningGateway.make({ drainTime: "50 millis" })
      const stream = yield* Effect.promise(() =>
        gateway
          .client()
          .chat.completions.create(
            { ...question(), stream: true },
            { headers: { "x-sim-fault": "stall:3,heartbeat:10ms" } }
          )
      )
      const read = Effect.tryPromise({
        try: async () => {
          for await (const chunk of stream) assert.isNull(chunk.choices[0]?.finish_reason)
        },
        catch: (cause) => cause
      })
      const reading = yield* Effect.forkChild(Effect.flip(read))
      yield* gateway.stop
      assert.instanceOf(yield* Fiber.join(reading), Error)
      const entry = yield* gateway.simulator.journal.awaitEntry(({ open }) => !open)
      assert.strictEqual(entry.outcome, "client-left")
      assert.strictEqual(gateway.allFibers(), 0)
    })
  )
})
