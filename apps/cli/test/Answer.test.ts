import { assert, describe, it } from "@effect/vitest"
import { Scenario } from "@llm/simulator"
import { Effect } from "effect"
import { lines, run, secret, simulated } from "./support/Oa.ts"

describe("answers", () => {
  it.live("streams the answer to stdout and writes nothing else there", () =>
    Effect.gen(function* () {
      const { oa, simulator } = yield* simulated()
      const ended = yield* oa(["why is the sky blue"])
      assert.strictEqual(ended.code, 0)
      assert.strictEqual(ended.stderr, "")
      const streamed = ended.stdout
      assert.match(streamed, /\w.*\n$/su)
      const [entry] = yield* simulator.journal.entries
      assert.strictEqual(entry?.stream, true)
      assert.strictEqual(entry?.model, "gpt-6-luna")
      const whole = yield* oa(["--no-stream", "why is the sky blue"])
      assert.strictEqual(whole.stdout, streamed)
      assert.strictEqual((yield* simulator.journal.entries)[1]?.stream, false)
    })
  )

  it.live("joins prompt and stdin with a blank line between", () =>
    Effect.gen(function* () {
      const { oa, simulator } = yield* simulated()
      const ended = yield* oa(["summarise", "-s", "in one line"], { stdin: "some text\n" })
      assert.strictEqual(ended.code, 0)
      const [entry] = yield* simulator.journal.entries
      assert.deepInclude(entry?.body, {
        messages: [
          { role: "system", content: "in one line" },
          { role: "user", content: "summarise\n\nsome text" }
        ]
      })
    })
  )

  it.live("takes the whole question from stdin", () =>
    Effect.gen(function* () {
      const { oa, simulator } = yield* simulated()
      for (const args of [[], ["ask"], ["-"]]) {
        const ended = yield* oa(args, { stdin: "why is the sky blue?" })
        assert.strictEqual(ended.code, 0, `oa ${args.join(" ")}: ${ended.stderr}`)
      }
      for (const { body } of yield* simulator.journal.entries) {
        assert.deepInclude(body, { messages: [{ role: "user", content: "why is the sky blue?" }] })
      }
    })
  )

  it.live("sends the flags, which win over the environment", () =>
    Effect.gen(function* () {
      const { oa, simulator } = yield* simulated()
      const ended = yield* oa(["-m", "gpt-6-sol", "--max-tokens", "900", "--temperature=0.5", "two words"], {
        env: { OPENAI_MODEL: "gpt-6-astra" }
      })
      assert.strictEqual(ended.code, 0, ended.stderr)
      yield* oa(["two words"], { env: { OPENAI_MODEL: "gpt-6-astra" } })
      yield* oa(["two words"], { env: { OPENAI_MODEL: "" } })
      const entries = yield* simulator.journal.entries
      assert.deepInclude(entries[0]?.body, {
        model: "gpt-6-sol",
        max_completion_tokens: 900,
        temperature: 0.5
      })
      assert.deepInclude(entries[1]?.body, { model: "gpt-6-astra" })
      assert.deepInclude(entries[2]?.body, { model: "gpt-6-luna" })
    })
  )

  it.live("--json prints one object with text, usage and cost", () =>
    Effect.gen(function* () {
      const { oa } = yield* simulated()
      const plain = yield* oa(["why is the sky blue"])
      for (const form of [[], ["--no-stream"]]) {
        const ended = yield* oa(["--json", ...form, "why is the sky blue"])
        assert.strictEqual(ended.code, 0)
        assert.strictEqual(ended.stderr, "")
        assert.strictEqual(lines(ended.stdout).length, 1)
        const { data, ok } = JSON.parse(ended.stdout)
        assert.strictEqual(ok, true)
        assert.strictEqual(`${data.text}\n`, plain.stdout)
        assert.strictEqual(data.finish_reason, "stop")
        assert.strictEqual(data.usage.total_tokens, data.usage.input_tokens + data.usage.output_tokens)
        assert.closeTo(
          data.cost_usd,
          (data.usage.input_tokens * 0.1 + data.usage.output_tokens * 0.5) / 1e6,
          1e-12
        )
      }
      const unpriced = yield* oa(["--json", "-m", "house-model", "two words"])
      assert.strictEqual(JSON.parse(unpriced.stdout).data.cost_usd, null)
    })
  )

  it.live("--verbose prints the receipt where stderr is no terminal; an unknown price is not 0", () =>
    Effect.gen(function* () {
      const { oa } = yield* simulated()
      const priced = yield* oa(["--verbose", "two words"])
      assert.match(priced.stderr, /^gpt-6-luna · \d+→\d+ tok · (?:< )?\$0\.\d{4} · [\d.]+ m?s\n$/u)
      const unpriced = yield* oa(["--verbose", "-m", "house-model", "two words"])
      assert.match(unpriced.stderr, /^house-model · \d+→\d+ tok · unpriced · /u)
      const simulation = yield* run(["--verbose", "--simulate", "two words"])
      assert.match(simulation.stderr, /^gpt-6-luna · \d+→\d+ tok · simulated · /u)
    })
  )

  it.live("without a key the built-in simulator answers and stderr says so", () =>
    Effect.gen(function* () {
      const ended = yield* run(["two words"])
      assert.strictEqual(ended.code, 0)
      assert.match(ended.stderr, /^OPENAI_API_KEY is not set: the built-in simulator answers\n$/u)
      const empty = yield* run(["two words"], { env: { OPENAI_API_KEY: "" } })
      assert.strictEqual(empty.stdout, ended.stdout)
      const asked = yield* run(["two words"], { env: { LLM_PROVIDER: "simulator", OPENAI_API_KEY: secret } })
      assert.deepStrictEqual(asked, { ...ended, stderr: "" })
      assert.strictEqual(JSON.parse((yield* run(["--json", "two words"])).stdout).data.provider, "simulator")
    })
  )

  it.live("retries faults that pass, and tells of it with --verbose only", () =>
    Effect.gen(function* () {
      const { oa, simulator } = yield* simulated()
      yield* simulator.script(Scenario.sequence(["status:503", "reset:headers", null]))
      const ended = yield* oa(["two words"])
      assert.strictEqual(ended.code, 0)
      assert.strictEqual(ended.stderr, "")
      assert.strictEqual((yield* simulator.journal.entries).length, 3)
      yield* simulator.script(Scenario.sequence(["status:429", null]))
      const told = yield* oa(["--verbose", "two words"])
      assert.match(told.stderr, /^rate limited, retry 1\/6 in [\d.]+ m?s\n/u)
    })
  )
})
