import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as FastCheck from "fast-check"
import { Simulator } from "@llm/simulator"
import * as Wire from "./Wire.ts"

/** The example of OpenAI's cookbook, whose count the API itself has confirmed for cl100k. */
const jargon = [
  {
    role: "system",
    content:
      "You are a helpful, pattern-following assistant that translates corporate jargon into plain English."
  },
  { role: "system", name: "example_user", content: "New synergies will help drive top-line growth." },
  {
    role: "system",
    name: "example_assistant",
    content: "Things working well together will increase revenue."
  },
  {
    role: "system",
    name: "example_user",
    content:
      "Let's circle back when we have more bandwidth to touch base on opportunities for increased leverage."
  },
  {
    role: "system",
    name: "example_assistant",
    content: "Let's talk later when we're less busy about how to do better."
  },
  {
    role: "user",
    content: "This late pivot means we don't have time to boil the ocean for the client deliverable."
  }
]

const ask = (port: number, model: string, messages: unknown, more: object = {}) =>
  Effect.map(Wire.exchange(port, { body: { model, messages, ...more } }), (reply) => JSON.parse(reply.body))

/** What a message of a text costs beside an empty one. */
const count = (port: number, content: string, model = "gpt-4o") =>
  Effect.gen(function* () {
    const tokens = (text: string) =>
      Effect.map(
        ask(port, model, [{ role: "user", content: text }]),
        ({ usage }): number => usage.prompt_tokens
      )
    return (yield* tokens(content)) - (yield* tokens(""))
  })

describe("tokens", () => {
  it.layer(Simulator.layer())((test) => {
    test.effect("of messages are those that OpenAI bills", () =>
      Effect.gen(function* () {
        const { port } = yield* Simulator.Simulator
        const counts = yield* Effect.forEach(
          ["gpt-4", "gpt-4-turbo", "gpt-4o", "gpt-4.1", "gpt-6-luna"],
          (model) => Effect.map(ask(port, model, jargon), ({ usage }): number => usage.prompt_tokens)
        )
        assert.deepStrictEqual(counts, [129, 129, 124, 124, 124])
      })
    )

    test.effect("of a hostile text are counted in its length's time", () =>
      Effect.gen(function* () {
        const { port } = yield* Simulator.Simulator
        // Merging one run of this length as a whole would take minutes.
        assert.strictEqual(yield* count(port, "a".repeat(1_000_000)), 125_000)
        assert.isAbove(yield* count(port, " ".repeat(1_000_000)), 0)
        assert.strictEqual(yield* count(port, "\u{1F600}".repeat(100_000)), 100_000)
        const half = yield* count(port, "word ".repeat(1_000_000))
        assert.approximately(yield* count(port, "word ".repeat(2_000_000)), half * 2, 2)
      })
    )

    test.effect("of what looks like a control token are those of a text", () =>
      Effect.gen(function* () {
        const { port } = yield* Simulator.Simulator
        assert.isAbove(yield* count(port, "<|endoftext|>"), 1)
      })
    )

    test.effect("of a reply, joined, are the reply, and none cuts a character", () =>
      Effect.gen(function* () {
        const { port } = yield* Simulator.Simulator
        const words = FastCheck.sample(FastCheck.string({ unit: "binary", minLength: 4, maxLength: 40 }), {
          numRuns: 30,
          seed: 7
        })
        for (const word of ["👩‍👩‍👧 𒀀𒀁 中文 ꧁", "\uD800 alone", ...words]) {
          const schema = { type: "object", properties: { a: { const: word } }, required: ["a"] }
          const more = { response_format: { type: "json_schema", json_schema: { name: "a", schema } } }
          const whole = yield* ask(port, "gpt-4o", jargon, more)
          const stream = yield* Wire.exchange(port, {
            body: { model: "gpt-4o", messages: jargon, ...more, stream: true }
          })
          const { text } = Wire.content(stream.body)
          assert.strictEqual(text, whole.choices[0].message.content)
          assert.strictEqual(JSON.parse(text).a, word)
          assert.strictEqual(whole.usage.completion_tokens, yield* count(port, text))
        }
      })
    )
  })
})
