import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import OpenAI from "openai"
import { Script, Simulator } from "@llm/simulator"
import * as OfficialClient from "./OfficialClient.ts"

const model = "gpt-6-luna"
const ask = (content: string) => ({ model, messages: [{ role: "user" as const, content }] })

const weather = `
unmatched: refuse
fixtures:
  - name: weather
    when: { model: gpt-6-luna, prompt: /weather/i }
    reply:
      - { text: "Rainy." }
      - { fault: "status:503" }
      - { text: "Sunny." }
  - name: tools
    when: { prompt: call it }
    reply: { toolCalls: [{ name: search, arguments: { query: sky } }] }
  - name: whole
    when: { path: /v1/models, headers: { x-team: red } }
    reply: { status: 418, headers: { x-tea: green }, json: { error: { message: no coffee, type: tea, param: null, code: teapot } } }
`

describe("a script", () => {
  it.effect("answers in the model's place, one reply after the other, in every operation that writes", () =>
    Effect.gen(function* () {
      const { client, simulator } = yield* OfficialClient.start()
      yield* simulator.play(yield* Script.parse(weather, "weather.yaml"))
      const said = (content: string) =>
        Effect.map(
          OfficialClient.call(() => client.chat.completions.create(ask(content))),
          (reply) => reply.choices[0]
        )
      assert.strictEqual((yield* said("The Weather?"))?.message.content, "Rainy.")
      const failed = yield* OfficialClient.refused(() => client.chat.completions.create(ask("weather")))
      assert.strictEqual(failed.status, 503)
      const response = yield* OfficialClient.call(() => client.responses.create({ model, input: "weather" }))
      assert.deepStrictEqual(
        [response.output_text, (response.usage?.output_tokens ?? 0) > 0],
        ["Sunny.", true]
      )
      const stream = yield* OfficialClient.all(() =>
        OfficialClient.flat(client.chat.completions.create({ ...ask("weather again"), stream: true }))
      )
      assert.strictEqual(stream.map((chunk) => chunk.choices[0]?.delta.content ?? "").join(""), "Sunny.")
      const [call] = (yield* said("Please call it"))?.message.tool_calls ?? []
      assert.deepStrictEqual(call?.type === "function" ? call.function : undefined, {
        name: "search",
        arguments: '{"query":"sky"}'
      })
      const teapot = yield* OfficialClient.refused(() => client.models.list({ headers: { "x-team": "red" } }))
      assert.deepStrictEqual([teapot.status, teapot.code], [418, "teapot"])
    })
  )

  it.effect("refuses what no fixture matches, and names the nearest", () =>
    Effect.gen(function* () {
      const { client } = yield* OfficialClient.start({ script: yield* Script.parse(weather) })
      const refused = yield* OfficialClient.refused(() =>
        client.chat.completions.create({ ...ask("The weather?"), model: "gpt-6-sol" })
      )
      assert.deepStrictEqual([refused.status, refused.code], [404, "no_fixture"])
      assert.include(
        refused.message,
        'The nearest is "weather": model: expected "gpt-6-luna", was "gpt-6-sol".'
      )
    })
  )

  it.effect("answers as always what no fixture matches, unless told to refuse", () =>
    Effect.gen(function* () {
      const { client } = yield* OfficialClient.start({
        script: { fixtures: [{ when: { prompt: "x" }, reply: { text: "y" } }] }
      })
      const reply = yield* OfficialClient.call(() => client.chat.completions.create(ask("Hello")))
      assert.isAbove(reply.choices[0]?.message.content?.length ?? 0, 10)
    })
  )

  it.effect("plans faults by number, share, burst, outage, model, key and header", () =>
    Effect.gen(function* () {
      const text = `
faults:
  - { fault: "status:500", when: { model: a }, requests: [2] }
  - { fault: "status:502", when: { model: b }, every: 3, length: 2 }
  - { fault: "status:503", when: { model: c }, from: 2, to: 2 }
  - { fault: "status:504", when: { model: d }, after: 0 millis, for: 1 hour }
  - { fault: "status:401", when: { key: dead } }
  - { fault: "status:409", when: { headers: { x-team: /^re/ } } }
  - { fault: "status:529", when: { model: e }, chance: 1 }
`
      const { fetch } = yield* Simulator.make({ port: false, script: yield* Script.parse(text) })
      const statuses = (name: string, count: number, headers: Record<string, string> = {}) =>
        Effect.promise(async () => {
          const seen: Array<number> = []
          for (let index = 0; index < count; index++) {
            const body = JSON.stringify({ ...ask("Hello"), model: name })
            const reply = await fetch("http://any/v1/chat/completions", { method: "POST", body, headers })
            seen.push(reply.status)
          }
          return seen
        })
      assert.deepStrictEqual(yield* statuses("a", 3), [200, 500, 200])
      assert.deepStrictEqual(yield* statuses("b", 6), [200, 502, 502, 200, 502, 502])
      assert.deepStrictEqual(yield* statuses("c", 3), [200, 503, 200])
      assert.deepStrictEqual(yield* statuses("d", 1), [504])
      assert.deepStrictEqual(yield* statuses("f", 1, { authorization: "Bearer dead" }), [401])
      assert.deepStrictEqual(yield* statuses("f", 2, { "x-team": "red" }), [409, 409])
      assert.deepStrictEqual(yield* statuses("e", 2), [529, 529])
      assert.deepStrictEqual(yield* statuses("f", 1), [200])
    })
  )

  it.effect("that is wrong is refused with the line and the reason of every place", () =>
    Effect.gen(function* () {
      const message = (text: string) =>
        Effect.map(Effect.flip(Script.parse(text, "faults.yaml")), (error) => error.message)
      const wrong = yield* message(
        "faults:\n  - fault: statos:503\n  - fault: html\n    chance: 2\nfixtres: []\n"
      )
      const lines = wrong.split("\n")
      assert.isTrue(
        lines.some(
          (line) =>
            line.startsWith("faults.yaml:2:12: faults[0].fault: ") && line.includes("the words are status")
        )
      )
      assert.isTrue(lines.some((line) => line.startsWith("faults.yaml:4:13: faults[1].chance: ")))
      assert.isTrue(lines.some((line) => line.includes("fixtres")))
      assert.match(yield* message("faults: [\n"), /^faults\.yaml:\d+:\d+: /)
      assert.include(
        yield* message('{"fixtures":[{"when":{"prompt":"/(/"},"reply":{}}]}'),
        "fixtures[0].when.prompt"
      )
    })
  )

  it.effect("is recorded from an upstream, replayed, and holds no secret", () =>
    Effect.gen(function* () {
      const upstream = yield* Simulator.make()
      const key = "sk-secret-0123456789"
      const recorder = yield* Simulator.make({ record: { upstream: upstream.url } })
      const talk = Effect.fnUntraced(function* (baseURL: string) {
        const client = new OpenAI({ baseURL, apiKey: key, maxRetries: 0 })
        const once = yield* OfficialClient.call(() => client.chat.completions.create(ask(`Is ${key} a key?`)))
        const stream = yield* OfficialClient.all(() =>
          OfficialClient.flat(client.responses.create({ model, input: "Hello", stream: true }))
        )
        return { once, stream }
      })
      const first = yield* talk(recorder.url)
      const script = yield* recorder.recording
      const text = Script.format(script)
      assert.notInclude(text, "0123456789")
      assert.strictEqual(script.fixtures?.length, 2)
      const replaying = yield* Simulator.make({ script: yield* Script.parse(text) })
      const client = new OpenAI({ baseURL: replaying.url, apiKey: "other", maxRetries: 0 })
      const stream = yield* OfficialClient.all(() =>
        OfficialClient.flat(client.responses.create({ model, input: "Hello", stream: true }))
      )
      assert.deepStrictEqual(stream, first.stream)
      const once = yield* OfficialClient.call(() => client.chat.completions.create(ask("Is sk-… a key?")))
      assert.strictEqual(once.usage?.total_tokens, first.once.usage?.total_tokens)
      assert.strictEqual((yield* upstream.journal.entries).length, 2)
    })
  )
})
