import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { TestClock } from "effect/testing"
import { LlmError } from "@llm/core"
import type { Passthrough } from "@llm/openai"
import * as Idempotency from "@llm/api/Idempotency"
import { Scenario } from "@llm/simulator"
import * as RunningGateway from "./support/RunningGateway.ts"

const { eventually, question } = RunningGateway

const reply = (text: string): Passthrough.RawReply => ({
  _tag: "Whole",
  status: 200,
  headers: {},
  requestId: undefined,
  attempts: 1,
  body: new TextEncoder().encode(text),
  usage: () => undefined,
  outcome: "bypass",
  age: undefined,
  call: undefined
})

const request = (key: string, body = "{}", caller = "me"): Idempotency.Request => ({
  key,
  caller,
  method: "post",
  path: "/responses",
  body: new TextEncoder().encode(body)
})

/** Counts how often it is asked. */
const counting = () => {
  let asked = 0
  return Effect.sync(() => reply(String(++asked)))
}

const textOf = ({ reply: { ...answer } }: Idempotency.Answer): string =>
  answer._tag === "Whole" ? new TextDecoder().decode(answer.body) : ""

describe("a repeated request", () => {
  it.effect("gets the answer that there is, for a day", () =>
    Effect.gen(function* () {
      const { run } = yield* Idempotency.make()
      const ask = counting()
      assert.deepStrictEqual(yield* Effect.map(run(request("a"), ask), textOf), "1")
      const again = yield* run(request("a"), ask)
      assert.deepStrictEqual([textOf(again), again.replayed], ["1", true])
      assert.strictEqual(textOf(yield* run(request("a", "{}", "another"), ask)), "2")
      assert.strictEqual(textOf(yield* run(request("b"), ask)), "3")
      yield* TestClock.adjust("24 hours")
      assert.strictEqual(textOf(yield* run(request("a"), ask)), "4")
    })
  )

  it.effect("with another body is refused", () =>
    Effect.gen(function* () {
      const { run } = yield* Idempotency.make()
      yield* run(request("a"), counting())
      const error = yield* Effect.flip(run(request("a", '{"other":1}'), counting()))
      assert.strictEqual(error._tag, "KeyReused")
    })
  )

  it.effect("waits for the first one, which runs on where its client has left", () =>
    Effect.gen(function* () {
      const { run } = yield* Idempotency.make()
      const answer = yield* Deferred.make<Passthrough.RawReply>()
      const first = yield* Effect.forkChild(run(request("a"), Deferred.await(answer)), {
        startImmediately: true
      })
      yield* Fiber.interrupt(first)
      const second = yield* Effect.forkChild(run(request("a"), counting()), { startImmediately: true })
      yield* Deferred.succeed(answer, reply("the first"))
      assert.strictEqual(textOf(yield* Fiber.join(second)), "the first")
    })
  )

  it.effect("is made anew after a failure", () =>
    Effect.gen(function* () {
      const { run } = yield* Idempotency.make()
      const error = new LlmError.ServerError({
        provider: "openai",
        deployment: "default",
        operation: "responses.create",
        attempts: 1,
        status: 500
      })
      assert.strictEqual(yield* Effect.flip(run(request("a"), Effect.fail(error))), error)
      assert.strictEqual(textOf(yield* run(request("a"), counting())), "1")
    })
  )

  it.effect("is made anew where its answer had to make room", () =>
    Effect.gen(function* () {
      const { run } = yield* Idempotency.make({ capacity: 2 })
      const ask = counting()
      for (const key of ["a", "b", "c", "d"]) yield* run(request(key), ask)
      assert.strictEqual(textOf(yield* run(request("d"), ask)), "4")
      assert.strictEqual(textOf(yield* run(request("a"), ask)), "5")
    })
  )
})

describe("through the gateway", () => {
  const send = (origin: string, key: string, body: object) =>
    Effect.promise(async () => {
      const answer = await fetch(`${origin}/v1/chat/completions`, {
        method: "POST",
        headers: { "idempotency-key": key },
        body: JSON.stringify(body)
      })
      return { status: answer.status, headers: answer.headers, text: await answer.text() }
    })

  it.live("a repeated POST costs nothing, and the key of another is refused with 422", () =>
    Effect.gen(function* () {
      const { origin, simulator } = yield* RunningGateway.make()
      const first = yield* send(origin, "k1", question())
      assert.isAbove(Number(first.headers.get("x-llm-cost")), 0)
      const again = yield* send(origin, "k1", question())
      assert.strictEqual(again.text, first.text)
      assert.strictEqual(again.headers.get("idempotent-replayed"), "true")
      assert.strictEqual(again.headers.get("x-llm-attempts"), "0")
      assert.strictEqual(again.headers.get("x-llm-cost"), "0.000000")
      assert.lengthOf(yield* simulator.journal.entries, 1)
      const other = yield* send(origin, "k1", question("Another?"))
      assert.strictEqual(other.status, 422)
      assert.include(other.text, '"code":"idempotency_key_reused"')
      assert.strictEqual((yield* send(origin, "no spaces", question())).status, 400)
    })
  )

  it.live("streams are not kept", () =>
    Effect.gen(function* () {
      const { origin, simulator } = yield* RunningGateway.make()
      for (const _ of [1, 2]) yield* send(origin, "k1", { ...question(), stream: true })
      assert.lengthOf(yield* simulator.journal.entries, 2)
    })
  )

  it.live("an answer whose client was lost is there for the next", () =>
    Effect.gen(function* () {
      const gateway = yield* RunningGateway.make()
      const { journal, script } = gateway.simulator
      yield* script(Scenario.sequence(["slow-headers:100ms"]))
      const controller = new AbortController()
      const lost = fetch(`${gateway.origin}/v1/chat/completions`, {
        method: "POST",
        headers: { "idempotency-key": "k1" },
        body: JSON.stringify(question()),
        signal: controller.signal
      })
      yield* journal.awaitEntry(() => true)
      controller.abort()
      yield* Effect.flip(Effect.tryPromise(() => lost))
      const { status } = yield* send(gateway.origin, "k1", question())
      assert.strictEqual(status, 200)
      assert.lengthOf(yield* journal.entries, 1)
      yield* eventually(() => gateway.fibers() === 0)
    })
  )
})
