import { spawnSync } from "node:child_process"
import { readFileSync } from "node:fs"
import { createRequire } from "node:module"
import { describe, expect, it } from "@effect/vitest"
import { Effect, type Layer } from "effect"
import * as fc from "fast-check"
import {
  CL100K_TOKEN_SPLIT_REGEX,
  O200K_TOKEN_SPLIT_REGEX,
  R50K_TOKEN_SPLIT_REGEX
} from "gpt-tokenizer/encodingParams/constants"
import * as Encodings from "../src/internal/encodings.ts"
import * as TextPieces from "../src/internal/textPieces.ts"
import * as Tokenizer from "../src/Tokenizer.ts"
import * as Property from "./support/Property.ts"

const with_ = <A, E>(
  use: (tokenizer: Tokenizer.Tokenizer["Service"]) => Effect.Effect<A, E>,
  layer: Layer.Layer<Tokenizer.Tokenizer> = Tokenizer.layer
): Effect.Effect<A, E> => Effect.provide(Effect.flatMap(Tokenizer.Tokenizer, use), layer)

/** OpenAI's cookbook, "How to count tokens with tiktoken". */
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

/** The library's own vectors, computed with tiktoken. */
const plans = readFileSync(createRequire(import.meta.url).resolve("gpt-tokenizer/data/TestPlans.txt"), "utf8")
  .split(/^EncodingName: /mu)
  .flatMap((plan) => {
    const match = /^(\w+)\nSample: ([\s\S]*)\nEncoded: \[(.*)\]\s*$/u.exec(plan)
    const [, encoding, sample, encoded] = match ?? []
    if (encoding === undefined || sample === undefined || encoded === undefined) return []
    return [{ encoding, sample, tokens: encoded === "" ? [] : encoded.split(", ").map(Number) }]
  })

const models: Record<string, string> = {
  o200k_base: "gpt-4o",
  cl100k_base: "gpt-4",
  p50k_base: "text-davinci-003",
  r50k_base: "davinci"
}

describe("Tokenizer", () => {
  it.effect.each([
    ["gpt-4", 129, true],
    ["gpt-3.5-turbo-0125", 129, true],
    ["gpt-4o", 124, true],
    ["gpt-4o-mini", 124, true],
    ["ft:gpt-4o-mini:acme::9x", 124, true],
    // The encoding is published, the formula is not.
    ["gpt-5.5", 124, false],
    ["o3", 124, false],
    ["gpt-6-luna", 124, false]
  ] as const)("counts the cookbook's messages for %s as the API does: %d", ([model, tokens, exact]) =>
    with_(({ countMessages }) =>
      Effect.map(countMessages(jargon, model), (count) => expect(count).toEqual({ tokens, exact }))
    )
  )

  it.effect("counts message by message what it counts for all", () =>
    with_(({ countEach, countMessages }) =>
      Effect.gen(function* () {
        const each = yield* countEach(jargon, "gpt-4")
        const all = yield* countMessages(jargon, "gpt-4")
        expect(each.reduce((sum, { tokens }) => sum + tokens, Tokenizer.replyTokens)).toBe(all.tokens)
      })
    )
  )

  it.effect.each(Object.keys(models))("encodes and decodes the published vectors of %s", (encoding) =>
    with_(({ count, decode, encode }) =>
      Effect.gen(function* () {
        const model = models[encoding] ?? ""
        const vectors = plans.filter((plan) => plan.encoding === encoding)
        expect(vectors.length).toBeGreaterThan(50)
        for (const { sample, tokens } of vectors) {
          expect(yield* encode(sample, model)).toEqual(tokens)
          expect(yield* decode(tokens, model)).toBe(sample)
          expect(yield* count(sample, model)).toEqual({ tokens: tokens.length, exact: true })
        }
      })
    )
  )

  it.each([
    ["gpt-4o-2024-11-20", "o200k_base", true],
    ["gpt-4.1-nano", "o200k_base", true],
    ["gpt-4.5-preview", "o200k_base", true],
    ["chatgpt-4o-latest", "o200k_base", true],
    ["o1", "o200k_base", true],
    ["o3-mini", "o200k_base", true],
    ["o4-mini-2025-04-16", "o200k_base", true],
    ["gpt-5", "o200k_base", true],
    ["gpt-5.6-sol", "o200k_base", true],
    ["gpt-oss-120b", "o200k_harmony", true],
    ["gpt-4-turbo", "cl100k_base", true],
    ["gpt-35-turbo-16k", "cl100k_base", true],
    ["ft:gpt-3.5-turbo:acme::9x", "cl100k_base", true],
    ["text-embedding-3-large", "cl100k_base", true],
    ["gpt-6-luna", "o200k_base", false],
    ["gpt-6.1-terra", "o200k_base", false]
  ])("knows the encoding of %s: %s", (model, name, exact) => {
    expect(Tokenizer.encodingOf(model)).toEqual({ name, exact })
  })

  it.each(["", "claude-4", "gpt-7", "gpt-40", "o10", "llama-4-gpt-4o"])(
    "knows no encoding of %j",
    (model) => {
      expect(Tokenizer.encodingOf(model)).toBeUndefined()
    }
  )

  it.effect("estimates for a model that nobody knows, and has no tokens for it", () =>
    with_(({ count, encode }) =>
      Effect.gen(function* () {
        expect(yield* count("Why is the sky blue?", "claude-4")).toEqual({ tokens: 5, exact: false })
        const error = yield* Effect.flip(encode("Why?", "claude-4"))
        expect(error.message).toBe('no published encoding is known for the model "claude-4"')
      })
    )
  )

  it.effect("takes what looks like a special token for text", () =>
    with_(({ count, decode, encode }) =>
      Effect.gen(function* () {
        const tokens = yield* encode("<|endoftext|>", "gpt-4o")
        expect(tokens.length).toBeGreaterThan(1)
        expect(yield* count("<|endoftext|>", "gpt-4o")).toEqual({ tokens: tokens.length, exact: true })
        expect(yield* decode(tokens, "gpt-4o")).toBe("<|endoftext|>")
        expect(yield* Effect.flip(decode([199_999], "gpt-4o"))).toMatchObject({
          _tag: "TokenUnknown",
          token: 199_999
        })
      })
    )
  )

  it.effect("counts tools and images as estimates, and an image not by its bytes", () =>
    with_(({ countMessages }) =>
      Effect.gen(function* () {
        const url = `data:image/png;base64,${"iVBORw0KGgo".repeat(50_000)}`
        const image = [
          {
            role: "user",
            content: [
              { type: "text", text: "What is this?" },
              { type: "image_url", image_url: { url, detail: "low" } }
            ]
          }
        ]
        expect(yield* countMessages(image, "gpt-4o")).toEqual({ tokens: 96, exact: false })
        const call = {
          id: "call_1",
          type: "function",
          function: { name: "weather", arguments: '{"city":"Bern"}' }
        }
        const tools = [
          { role: "assistant", content: null, tool_calls: [call] },
          { role: "tool", tool_call_id: "call_1", content: "sunny" }
        ]
        const count = yield* countMessages(tools, "gpt-4o")
        expect(count.exact).toBe(false)
        expect(count.tokens).toBeGreaterThan(15)
      })
    )
  )

  it("loads nothing with the main entry, not even where it counts by characters", () => {
    const script = `
      import { registerHooks } from "node:module"
      const asked = []
      registerHooks({ resolve(name, context, next) {
        if (name.startsWith("gpt-tokenizer")) asked.push(name)
        return next(name, context)
      } })
      const { Tokenizer } = await import(${JSON.stringify(new URL("../src/index.ts", import.meta.url).href)})
      const { Effect } = await import(${JSON.stringify(import.meta.resolve("effect"))})
      const run = (layer, model) => Effect.runPromise(Effect.provide(
        Effect.flatMap(Tokenizer.Tokenizer, ({ count }) => count("Hello", model)), layer))
      await run(Tokenizer.layerEstimate, "gpt-4o")
      await run(Tokenizer.layer, "claude-4")
      const before = asked.length
      await Promise.all([run(Tokenizer.layer, "gpt-4o"), run(Tokenizer.layer, "gpt-5")])
      console.log(JSON.stringify([before, asked]))`
    const { status, stdout } = spawnSync(process.execPath, ["--input-type=module", "--eval", script], {
      encoding: "utf8"
    })
    expect(status).toBe(0)
    expect(JSON.parse(stdout)).toEqual([
      0,
      ["gpt-tokenizer/encoding/o200k_base", "gpt-tokenizer/bpeRanks/o200k_base"]
    ])
  })

  it("has one copy of an encoding for all who ask", () => {
    expect(Encodings.load("o200k_base")).toBe(Encodings.load("o200k_base"))
  })
})

/** The patterns by which the encodings cut a text: what is left whole costs its length squared. */
const patterns = {
  cl100k_base: CL100K_TOKEN_SPLIT_REGEX,
  o200k_base: O200K_TOKEN_SPLIT_REGEX,
  r50k_base: R50K_TOKEN_SPLIT_REGEX
}

/** Upper bound of the merges that an encoder tries for a text, in pairs of characters. */
const workOf = (pieces: ReadonlyArray<string>, pattern: RegExp): number =>
  pieces.reduce(
    (sum, piece) => sum + (piece.match(pattern) ?? []).reduce((all, { length }) => all + length ** 2, 0),
    0
  )

const million = 1_000_000
/** Runs of at most 256 of each of three classes may stand together in one match. */
const boundPerCharacter = 3 * TextPieces.longestRun + 8

const hostile: ReadonlyArray<readonly [string, string]> = [
  ["one letter", "a".repeat(million)],
  ["capitals", "A".repeat(million)],
  ["mixed case", "aB".repeat(million / 2)],
  ["dashes", "-".repeat(million)],
  ["slashes and lines", "/\n".repeat(million / 2)],
  ["spaces", " ".repeat(million)],
  ["lines", "\n".repeat(million)],
  ["digits", "7".repeat(million)],
  ["letters with marks", "e\u0301".repeat(million / 2)],
  ["marks alone", "\u0301".repeat(million)],
  ["marks and dashes", "\u0301-".repeat(million / 2)],
  ["Chinese", "漢".repeat(million)],
  ["emoji", "😀".repeat(million / 2)],
  ["half surrogates", "\ud83d".repeat(million)],
  ["apostrophes", "'s".repeat(million / 2)]
]

describe("hostile texts", () => {
  it.each(hostile)("a megabyte of %s takes work in proportion to its length", (_, text) => {
    for (const [name, pattern] of Object.entries(patterns)) {
      const { pieces } = TextPieces.split(text, name === "r50k_base")
      expect(pieces.join("") === text).toBe(true)
      expect(pieces.length).toBeLessThanOrEqual(text.length / (TextPieces.longestRun - 1) + 1)
      expect(workOf(pieces, pattern)).toBeLessThanOrEqual(text.length * boundPerCharacter)
    }
  })

  it("any mix of runs takes work in proportion to its length", () => {
    const run = fc
      .tuple(
        fc.constantFrom(
          "a",
          "A",
          "é",
          "e\u0301",
          "\u0301",
          "漢",
          "😀",
          "\ud83d",
          "-",
          "/",
          "/\n",
          "'s",
          "\n",
          " ",
          "\t",
          "7"
        ),
        fc.integer({ min: 1, max: 2000 })
      )
      .map(([unit, times]) => unit.repeat(times))
    Property.holds(fc.array(run, { maxLength: 12 }), (runs) => {
      const text = runs.join("")
      for (const [name, pattern] of Object.entries(patterns)) {
        const { cut, pieces } = TextPieces.split(text, name === "r50k_base")
        expect(pieces.join("") === text).toBe(true)
        expect(workOf(pieces, pattern)).toBeLessThanOrEqual(text.length * boundPerCharacter)
        // What is not cut is counted exactly: the encoder splits there, too.
        const whole = text.match(pattern) ?? []
        expect(cut ? whole : pieces.flatMap((piece) => piece.match(pattern) ?? [])).toEqual(whole)
      }
    })
  })

  it("cuts prose only where the encodings cut it", () => {
    const word = fc.constantFrom(
      "The",
      "quick",
      "don't",
      "naïve",
      "漢字",
      "3.14",
      "--",
      "\n",
      "  ",
      "x,\n",
      "",
      "\t"
    )
    Property.holds(
      fc.array(word, { minLength: 5000, maxLength: 6000 }),
      (words) => {
        const text = words.join(" ")
        const { cut, pieces } = TextPieces.split(text, false)
        expect(cut).toBe(false)
        expect(pieces.length).toBeGreaterThan(1)
        for (const pattern of Object.values(patterns)) {
          expect(pieces.flatMap((piece) => piece.match(pattern) ?? [])).toEqual(text.match(pattern) ?? [])
        }
      },
      10
    )
  })

  it.effect("says that a count with a cut in it is not exact, and is close to the exact one", () =>
    with_(({ count, decode, encode }) =>
      Effect.gen(function* () {
        const text = "a".repeat(4000)
        // 500 by tiktoken.
        expect(yield* count(text, "gpt-4o")).toEqual({ tokens: 500, exact: false })
        expect(yield* decode(yield* encode(text, "gpt-4o"), "gpt-4o")).toBe(text)
        expect(yield* count("https://example.com/".padEnd(400, "0a1-"), "gpt-4o")).toMatchObject({
          exact: true
        })
      })
    )
  )
})
