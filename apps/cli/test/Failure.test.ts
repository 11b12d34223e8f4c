import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { lines, pointedAt, run, secret, simulated } from "./support/Oa.ts"

describe("failures", () => {
  const cases: ReadonlyArray<
    readonly [fault: string, code: number, tag: string, hint: RegExp, args?: ReadonlyArray<string>]
  > = [
    ["status:400", 1, "InvalidRequest", /request/u],
    ["status:404;code=model_not_found", 1, "ModelNotFound", /another model/u],
    ["status:500", 1, "ServerError", /Try again/u],
    ["html", 1, "MalformedResponse", /OPENAI_BASE_URL/u],
    ["cut:3", 3, "StreamInterrupted", /incomplete/u],
    ["reset:3", 3, "StreamInterrupted", /incomplete/u],
    ["length", 3, "AnswerUnusable", /--max-tokens/u],
    ["content-filter", 3, "AnswerUnusable", /rephrase/u],
    ["refusal", 3, "AnswerUnusable", /rephrase/u],
    ["status:401", 4, "Unauthorized", /OPENAI_API_KEY/u],
    ["status:403", 4, "PermissionDenied", /key/u],
    ["status:429", 5, "RateLimited", /Try again/u],
    ["status:429;code=insufficient_quota", 5, "QuotaExhausted", /credits/u],
    ["reset:headers", 6, "ConnectionFailed", /network/u],
    ["no-headers", 6, "TimedOut", /LLM_TIMEOUT_TOTAL/u, ["--timeout", "150ms"]]
  ]

  for (const [fault, code, tag, hint, args = []] of cases) {
    it.live(`${fault} is ${tag}, told in at most four lines with a way out, and exits ${code}`, () =>
      Effect.gen(function* () {
        const { oa } = yield* simulated()
        const model = ["-m", `gpt-6-luna+fault=${fault}`, "--retries", "0", ...args]
        const ended = yield* oa([...model, "two words"])
        assert.strictEqual(ended.code, code, ended.stderr)
        assert.match(ended.stderr, /^error: /u)
        assert.match(ended.stderr, hint)
        assert.isAtMost(lines(ended.stderr).length, 4)
        assert.notInclude(ended.stderr, secret)
        if (code !== 3) assert.strictEqual(ended.stdout, "")

        const json = yield* oa(["--json", ...model, "two words"])
        assert.strictEqual(json.code, code)
        assert.strictEqual(json.stdout, "")
        const { error, ok } = JSON.parse(json.stderr)
        assert.strictEqual(ok, false)
        assert.deepInclude(error, { tag, exit_code: code })
        if (tag === "StreamInterrupted") assert.strictEqual(`${error.partial}\n`, ended.stdout)
      })
    )
  }

  it.live("an incomplete answer keeps what came on stdout and is called incomplete on stderr", () =>
    Effect.gen(function* () {
      const { oa } = yield* simulated()
      const whole = yield* oa(["why is the sky blue"])
      const cut = yield* oa(["-m", "gpt-6-luna+fault=cut:5", "why is the sky blue"])
      assert.strictEqual(cut.code, 3)
      assert.isTrue(cut.stdout.length > 1 && whole.stdout.startsWith(cut.stdout.trimEnd()))
      assert.match(cut.stderr, /incomplete/u)
    })
  )

  it.live("nobody listening is 6, a rejected key never appears", () =>
    Effect.gen(function* () {
      const refused = yield* run(["--retries", "0", "two words"], { env: pointedAt("http://127.0.0.1:9/v1") })
      assert.strictEqual(refused.code, 6)
      assert.match(refused.stderr, /Nothing listens there/u)
      const { oa } = yield* simulated({ apiKeys: ["sk-another-key-000000"] })
      const rejected = yield* oa(["two words"])
      assert.strictEqual(rejected.code, 4)
      assert.notInclude(rejected.stderr, "thisIsAVerySecret")
    })
  )

  it.live("the key itself is never repeated, whatever it looks like", () =>
    Effect.gen(function* () {
      const { oa } = yield* simulated()
      const key = "hunter2hunter2"
      const fault = `status:401;message=Incorrect%20API%20key%20${key}`
      for (const form of [[], ["--json"]]) {
        const ended = yield* oa([...form, "-m", `gpt-6-luna+fault=${fault}`, "two words"], {
          env: { OPENAI_API_KEY: key }
        })
        assert.strictEqual(ended.code, 4)
        assert.match(ended.stderr, /…ter2/u)
        assert.notInclude(ended.stderr, key)
      }
    })
  )

  const unusable: ReadonlyArray<
    readonly [args: ReadonlyArray<string>, env: Readonly<Record<string, string>>, message: RegExp]
  > = [
    [["--nope", "two words"], {}, /--nope/u],
    [["--max-tokens", "many", "two words"], {}, /max-tokens/u],
    [["--max-tokens", "0", "two words"], {}, /max-tokens/u],
    [["--temperature", "3", "two words"], {}, /temperature/u],
    [["--timeout", "soon", "two words"], {}, /timeout/u],
    [["--simulate", "--base-url", "http://127.0.0.1/v1", "two words"], {}, /contradict/u],
    [["ask"], {}, /nothing to ask/u],
    [["two words"], { LLM_TIMEOUT_IDLE: "3 fortnights" }, /LLM_TIMEOUT_IDLE/u],
    [["two words"], { LLM_RETRY_TIMES: "often" }, /LLM_RETRY_TIMES/u],
    [["two words"], { LLM_PROVIDER: "bedrock" }, /LLM_PROVIDER/u],
    [["two words"], { LLM_LOG_LEVEL: "loud" }, /LLM_LOG_LEVEL/u],
    [["two words"], { LLM_PROVIDER: "openai" }, /OPENAI_API_KEY is not set/u],
    [["two words"], { OPENAI_API_KEY: secret, OPENAI_BASE_URL: "nowhere" }, /OPENAI_BASE_URL/u]
  ]

  for (const [args, env, message] of unusable) {
    it.live(`usage: ${[...Object.entries(env).map((pair) => pair.join("=")), "oa", ...args].join(" ")}`, () =>
      Effect.gen(function* () {
        const ended = yield* run(args, { env })
        assert.strictEqual(ended.code, 2, ended.stderr)
        assert.strictEqual(ended.stdout, "")
        assert.match(ended.stderr, message)
        assert.isAtMost(lines(ended.stderr).length, 4)
        assert.notInclude(ended.stderr, "thisIsAVerySecret")
      })
    )
  }

  it.live("usage errors are JSON too where JSON is asked for", () =>
    Effect.gen(function* () {
      for (const args of [["--nope", "two words"], ["batc"], ["ask"]]) {
        const ended = yield* run(["--json", ...args])
        assert.strictEqual(ended.stdout, "")
        assert.deepInclude(JSON.parse(ended.stderr).error, { tag: "UsageError", exit_code: 2 })
      }
    })
  )
})
