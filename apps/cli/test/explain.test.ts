import { assert, describe, it, layer } from "@effect/vitest"
import { Effect } from "effect"
import * as Gateway from "./support/Gateway.ts"
import { lines, run, secret, simulated } from "./support/Oa.ts"

const twoDeployments = `
deployments:
  - name: west
    provider: openai
    baseUrl: UPSTREAM
    apiKey: { env: PROVIDER_KEY }
    models:
      fast: gpt-6-luna+fault=status:503
      gpt-6-luna: gpt-6-luna
      locked: gpt-6-luna+fault=status:401
      short: gpt-6-luna+fault=length
  - name: east
    provider: openai
    baseUrl: UPSTREAM
    apiKey: { env: PROVIDER_KEY }
    models: { fast: gpt-6-luna }
routing: { strategy: ordered }
retries: { base: 1 millis }
cache: { kind: memory }
limits: [{ name: everybody, requestsPerMinute: 60 }]
`

/** Lines of a name and a value. */
const facts = (text: string) => text.split("\n").filter((line) => /^\S+ +\S/u.test(line))

layer(Gateway.layer(twoDeployments), { excludeTestServices: true, timeout: "60 seconds" })(
  "oa explain",
  (tests) => {
    tests.effect("prints the answer on stdout, and every step of its call on stderr", () =>
      Effect.gen(function* () {
        const { oa } = yield* Gateway.Gateway
        const told = yield* oa(["explain", "-m", "fast", "why is the sky blue"])
        assert.strictEqual(told.code, 0, told.stderr)
        assert.strictEqual(told.stdout, (yield* oa(["ask", "-m", "fast", "why is the sky blue"])).stdout)
        assert.notInclude(told.stderr, secret)
        const rows = facts(told.stderr)
        assert.isTrue(
          lines(told.stderr).every((line) => line.length <= 80),
          told.stderr
        )
        assert.match(
          told.stderr,
          /^\ncall {5}[\w-]+\nasked {4}chat\.stream of fast\noutcome {2}200 after [\d.]+ m?s\n/u
        )
        assert.match(told.stderr, /\battempt 1 +west +gpt-6-luna\+fault=status:503\n +Overloaded: /u)
        assert.match(
          told.stderr,
          /\battempt \d +east +gpt-6-luna\n +answered after [\d.]+ m?s, request req_/u
        )
        for (const [name, value] of [
          ["cache", /miss; shared by every caller for equal requests to chat\.stream of fast,/u],
          ["tokens", /\d+ in, \d+ out/u],
          ["price", /input \$0\.10, .*output \$0\.50/u],
          ["cost", /\$0\.0000\d\d/u],
          ["limits", /everybody: 5\d of 60 requests left/u]
        ] as const) {
          assert.match(rows.find((row) => row.startsWith(name)) ?? "", value)
        }
        const kept = yield* oa(["explain", "-m", "fast", "why is the sky blue"])
        assert.strictEqual(kept.stdout, told.stdout)
        assert.match(kept.stderr, /\nnothing was sent to a provider\n\ncache {4}hit;/u)
      })
    )

    tests.effect("--json is one object with both; --id shows a call again, on stdout", () =>
      Effect.gen(function* () {
        const { oa } = yield* Gateway.Gateway
        const told = yield* oa(["explain", "--json", "--no-stream", "two words"])
        assert.deepInclude(told, { code: 0, stderr: "" })
        assert.strictEqual(lines(told.stdout).length, 1)
        const { data } = JSON.parse(told.stdout)
        assert.isString(data.text)
        const [explanation] = data.explanations
        assert.strictEqual(data.explanations.length, 1)
        assert.strictEqual(explanation.operation, "chat.create")
        assert.strictEqual(explanation.usage.totalTokens, data.usage.total_tokens)
        // Fields that this version does not show are there too.
        assert.strictEqual(explanation.attempts[0].provider, "openai")

        const again = yield* oa(["explain", "--json", "--id", explanation.id])
        assert.deepStrictEqual(JSON.parse(again.stdout), { ok: true, data: { explanations: [explanation] } })
        const shown = yield* oa(["explain", "--id", explanation.id])
        assert.deepInclude(shown, { code: 0, stderr: "" })
        assert.match(shown.stdout, new RegExp(`^call {5}${explanation.id}\n`, "u"))
        assert.match(shown.stdout, /\battempt 1 +west/u)

        const unknown = yield* oa(["explain", "--id", "01a1feaa-0000"])
        assert.deepInclude(unknown, { code: 1, stdout: "" })
        assert.match(unknown.stderr, /^error: \S+ knows nothing of the call 01a1feaa-0000\n {2}fix: /u)
      })
    )

    tests.effect("a call that failed is explained, and exits as it would", () =>
      Effect.gen(function* () {
        const { oa } = yield* Gateway.Gateway
        const args = ["explain", "--retries", "0", "-m", "locked", "two words"]
        const told = yield* oa(args)
        assert.deepInclude(told, { code: 4, stdout: "" })
        assert.match(told.stderr, /\noutcome {2}401.*, Unauthorized\n/u)
        assert.match(told.stderr, /\battempt 1 +west +gpt-6-luna\+fault=status:401\n +Unauthorized: /u)
        assert.match(told.stderr, /\nerror: .*\n {2}fix: .*\n$/u)
        const json = yield* oa([...args, "--json"])
        assert.deepInclude(json, { code: 4, stdout: "" })
        const { error } = JSON.parse(json.stderr)
        assert.strictEqual(error.tag, "Unauthorized")
        assert.strictEqual(error.explanations[0].attempts[0].failure.error, "Unauthorized")
      })
    )

    tests.effect("an answer that is cut off is explained too", () =>
      Effect.gen(function* () {
        const { oa } = yield* Gateway.Gateway
        const told = yield* oa(["explain", "-m", "short", "two words"])
        assert.strictEqual(told.code, 3)
        assert.match(told.stderr, /\noutcome {2}200 .*\n(?:.*\n)*error: the answer is incomplete/u)
      })
    )
  }
)

describe("without a gateway", () => {
  it.live("a server that is no gateway: the answer, and what to do", () =>
    Effect.gen(function* () {
      const { oa, simulator } = yield* simulated()
      const told = yield* oa(["explain", "two words"])
      assert.strictEqual(told.code, 1)
      assert.strictEqual(told.stdout, (yield* oa(["two words"])).stdout)
      assert.match(
        told.stderr,
        /^error: 127\.0\.0\.1:\d+ does not explain its calls.*\n {2}fix: .*gateway.*oa ask\n$/u
      )
      const json = yield* oa(["explain", "--json", "two words"])
      assert.strictEqual(`${JSON.parse(json.stdout).data.text}\n`, told.stdout)
      assert.strictEqual(JSON.parse(json.stderr).error.tag, "NotExplained")
      const shown = yield* oa(["explain", "--id", "a-call"])
      assert.deepInclude(shown, { code: 1, stdout: "" })
      // The failure of a call stays what it is.
      const refused = yield* oa(["explain", "-m", "gpt-6-luna+fault=status:401", "two words"])
      assert.strictEqual(refused.code, 4)
      assert.match(refused.stderr, /^error: .*401/u)
      assert.isTrue((yield* simulator.journal.entries).length > 0)
    })
  )

  it.live("nothing is sent where nobody could explain it", () =>
    Effect.gen(function* () {
      const { oa, simulator } = yield* simulated()
      const nowhere = yield* run(["explain", "two words"], { env: { OPENAI_API_KEY: secret } })
      assert.strictEqual(nowhere.code, 2)
      assert.match(nowhere.stderr, /^error: OPENAI_BASE_URL is not set: only a gateway/u)
      const keyless = yield* run(["explain", "--base-url", simulator.url, "two words"])
      assert.match(keyless.stderr, /^error: OPENAI_API_KEY is not set\n/u)
      for (const args of [
        ["--id", "../models"],
        ["--id", "a-call", "two words"]
      ]) {
        assert.strictEqual((yield* oa(["explain", ...args])).code, 2, args.join(" "))
      }
      assert.strictEqual((yield* simulator.journal.entries).length, 0)
    })
  )
})
