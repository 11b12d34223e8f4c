import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { Scenario, Simulator } from "@llm/simulator"
import OpenAI, { APIError } from "openai"
import * as HeldUpstream from "./support/HeldUpstream.ts"
import * as Json from "./support/Json.ts"
import * as Program from "./support/Program.ts"
import * as RawConnection from "./support/RawConnection.ts"
import { key, question } from "./support/RunningGateway.ts"

/** Each test starts processes, which takes its time on a busy machine. */
const patience = 30_000

const ready = "Ctrl-C stops it."

describe("the program", () => {
  it.live(
    "runs without a key or a setting, says so, and prints three lines to try",
    () =>
      Effect.gen(function* () {
        const port = yield* Program.freePort
        // As in a copied .env.example: set to nothing is not set.
        const environment = {
          OPENAI_API_KEY: "",
          OPENAI_BASE_URL: " ",
          LLM_PROVIDER: "",
          LLM_BREAKER: "",
          LLM_PORT: ""
        }
        const program = yield* Program.start(["--port", String(port)], environment)
        const url = `http://127.0.0.1:${port}/v1`
        yield* program.shows(ready)
        const client = new OpenAI({ baseURL: url, apiKey: "any" })
        const reply = yield* Effect.promise(() => client.chat.completions.create(question()))
        assert.strictEqual(reply.choices[0]?.finish_reason, "stop")
        program.child.kill("SIGINT")
        const { code, stderr, stdout } = yield* program.ended
        assert.strictEqual(code, 0)
        assert.strictEqual(stderr, "")
        const [head, blank, ...lines] = stdout.trimEnd().split("\n")
        assert.include(head, "embedded simulator (OPENAI_API_KEY is not set)")
        assert.strictEqual(blank, "")
        assert.lengthOf(lines, 3)
        const [curl, sdk, cli] = lines
        assert.include(curl, `curl ${url}/chat/completions `)
        assert.include(sdk, `new OpenAI({ baseURL: "${url}"`)
        assert.include(cli, `OPENAI_BASE_URL=${url} `)
        const body = /-d '(.*)'$/u.exec(curl ?? "")?.[1] ?? ""
        assert.strictEqual(Json.inText(body, "model"), "gpt-6-luna")
      }),
    patience
  )

  it.live(
    "takes a free port for the port 0, and says which",
    () =>
      Effect.gen(function* () {
        const program = yield* Program.start(["--port", "0"], { OPENAI_API_KEY: "" })
        yield* program.shows(ready)
        const url = /^Gateway on (\S+),/u.exec(program.stdout())?.[1] ?? ""
        assert.notStrictEqual(new URL(url).port, "0")
        const answer = yield* Effect.promise(() => fetch(`${url}/models`))
        assert.strictEqual(answer.status, 200)
      }),
    patience
  )

  it.live(
    "ends at once where it is asked a second time",
    () =>
      Effect.gen(function* () {
        const held = yield* HeldUpstream.make
        const port = yield* Program.freePort
        const program = yield* Program.start([], {
          OPENAI_API_KEY: key,
          OPENAI_BASE_URL: held.url,
          LLM_PORT: String(port)
        })
        yield* program.shows(ready)
        const client = new OpenAI({ baseURL: `http://127.0.0.1:${port}/v1`, apiKey: "any", maxRetries: 0 })
        const stream = yield* Effect.promise(() =>
          client.chat.completions.create({ ...question(), stream: true })
        )
        const chunks = stream[Symbol.asyncIterator]()
        yield* Effect.promise(() => chunks.next())
        // Once is to wait for the stream; the terminal and a package manager may both say it.
        program.child.kill("SIGTERM")
        while (yield* RawConnection.accepts(port)) yield* Effect.yieldNow
        assert.isNull(program.child.exitCode)
        const ended = yield* Effect.forkChild(program.ended, { startImmediately: true })
        while (ended.pollUnsafe() === undefined) {
          program.child.kill("SIGTERM")
          yield* RawConnection.accepts(port)
        }
        assert.strictEqual((yield* Fiber.join(ended)).code, 143)
      }),
    patience
  )

  it.live(
    "lets running streams end after a signal, then ends with 0",
    () =>
      Effect.gen(function* () {
        const held = yield* HeldUpstream.make
        const port = yield* Program.freePort
        const program = yield* Program.start([], {
          LLM_PORT: String(port),
          OPENAI_API_KEY: key,
          OPENAI_BASE_URL: held.url
        })
        yield* program.shows(ready)
        const connection = yield* RawConnection.make(port)
        const body = { ...question(), stream: true }
        yield* connection.write(RawConnection.request("POST", "/v1/chat/completions", { body }))
        yield* connection.shows(`"${HeldUpstream.words[0]}"`)
        program.child.kill("SIGTERM")
        while (yield* RawConnection.accepts(port)) yield* Effect.yieldNow
        yield* held.release
        assert.include(yield* connection.ended, "data: [DONE]\n\n\r\n0\r\n\r\n")
        const { code, stderr, stdout } = yield* program.ended
        assert.strictEqual(code, 0)
        assert.strictEqual(stderr, "")
        assert.include(stdout, "answered by OpenAI.")
        assert.notInclude(stdout, key)
      }),
    patience
  )

  it.live(
    "never shows the key, whatever goes wrong",
    () =>
      Effect.gen(function* () {
        const told = encodeURIComponent(`No access with Bearer ${key}.`)
        const simulator = yield* Simulator.make({
          scenario: Scenario.sequence([`status:500;message=${told}`, `status:401;message=${told}`])
        })
        const port = yield* Program.freePort
        const program = yield* Program.start(["--port", String(port)], {
          OPENAI_API_KEY: key,
          OPENAI_BASE_URL: simulator.url,
          LLM_RETRY_TIMES: "0",
          LLM_LOG_LEVEL: "Trace"
        })
        yield* program.shows(ready)
        const client = new OpenAI({ baseURL: `http://127.0.0.1:${port}/v1`, apiKey: "any" })
        for (const status of [500, 401]) {
          const failure = yield* Effect.flip(
            Effect.tryPromise({
              try: () => client.chat.completions.create(question()),
              catch: (cause) => cause
            })
          )
          assert.strictEqual(failure instanceof APIError ? failure.status : failure, status)
          assert.notInclude(String(failure), "CANARY")
        }
        program.child.kill("SIGTERM")
        const { code, stderr, stdout } = yield* program.ended
        assert.strictEqual(code, 0)
        assert.include(stderr, "error=ServerError")
        assert.notInclude(stdout + stderr, "CANARY")
      }),
    patience
  )

  it.live(
    "tells of its settings and exit codes",
    () =>
      Effect.gen(function* () {
        const { code, stderr, stdout } = yield* Program.run(["--help"])
        assert.strictEqual(code, 0)
        assert.strictEqual(stderr, "")
        for (const word of [
          "--provider",
          "OPENAI_API_KEY",
          "LLM_BODY_LIMIT",
          "LLM_BREAKER_OPEN_FOR",
          "Exit codes:"
        ]) {
          assert.include(stdout, word)
        }
      }),
    patience
  )
})

describe("a start that fails", () => {
  const rows: ReadonlyArray<
    readonly [what: string, args: ReadonlyArray<string>, environment: Record<string, string>, line: string]
  > = [
    [
      "without a key for OpenAI",
      ["--provider", "openai"],
      {},
      "OPENAI_API_KEY is not set: set it, or choose LLM_PROVIDER=simulator"
    ],
    [
      "with a key of nothing",
      [],
      { LLM_PROVIDER: "openai", OPENAI_API_KEY: "" },
      "OPENAI_API_KEY is not set"
    ],
    [
      "with a base URL that is none",
      [],
      { OPENAI_API_KEY: key, OPENAI_BASE_URL: "localhost" },
      "OPENAI_BASE_URL: "
    ],
    [
      "with a malformed policy",
      [],
      { LLM_TIMEOUT_IDLE: "soon" },
      'LLM_TIMEOUT_IDLE: expected a valid Duration string, such as "500 millis"'
    ],
    ["with a level that there is none of", [], { LLM_LOG_LEVEL: "loud" }, "LLM_LOG_LEVEL: "],
    ["with an unknown flag", ["--prot", "80"], {}, "Unknown option '--prot'. See --help."],
    ["with a stray word", ["serve"], {}, "See --help."]
  ]

  it.live(
    "says why in one line, and ends with 2",
    () =>
      Effect.forEach(
        rows,
        ([what, args, environment, line]) =>
          Effect.map(Program.run(args, environment), ({ code, stderr, stdout }) => {
            assert.strictEqual(code, 2, what)
            assert.strictEqual(stdout, "", what)
            assert.match(stderr, /^llm-gateway: [^\n]+\n$/u, what)
            assert.include(stderr, line, what)
            assert.notInclude(stderr, "CANARY", what)
          }),
        { concurrency: 2, discard: true }
      ),
    patience
  )

  it.live(
    "because its port is taken says which and what to do, and ends with 1",
    () =>
      Effect.gen(function* () {
        const port = yield* Program.freePort
        yield* Program.listen(port)
        const { code, stderr, stdout } = yield* Program.run(["--port", String(port)])
        assert.strictEqual(code, 1)
        assert.strictEqual(stdout, "")
        assert.strictEqual(
          stderr,
          `llm-gateway: 127.0.0.1:${port} is taken: stop what listens there, or choose another port with --port or LLM_PORT\n`
        )
      }),
    patience
  )
})
