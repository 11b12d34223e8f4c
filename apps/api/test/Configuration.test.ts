/** A file that changes under a running gateway, which is a process of its own. */
import { assert, describe, it } from "@effect/vitest"
import { mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as TestClock from "effect/testing/TestClock"
import OpenAI from "openai"
import * as Configuration from "@llm/api/Configuration"
import * as Pipeline from "@llm/api/Pipeline"
import { Simulator } from "@llm/simulator"
import * as HeldUpstream from "./support/HeldUpstream.ts"
import * as Program from "./support/Program.ts"
import * as RawConnection from "./support/RawConnection.ts"
import { question } from "./support/RunningGateway.ts"

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "llm-configuration-"))),
  (name) => Effect.sync(() => rmSync(name, { recursive: true, force: true }))
)

const deployments = (models: Readonly<Record<string, string>>) =>
  JSON.stringify({
    deployments: Object.entries(models).map(([model, baseUrl]) => ({
      name: model,
      baseUrl,
      apiKey: { env: "UPSTREAM_KEY" },
      models: { [model]: "gpt-6-luna" }
    }))
  })

describe("a configuration", () => {
  it.effect("that meets a mistake of ours is told of, and the next change is followed all the same", () =>
    Effect.gen(function* () {
      const logs: Array<string> = []
      let text = "{}"
      let tries = 0
      const nothing = Effect.die("nobody asks")
      const pipeline = Layer.succeed(Pipeline.Pipeline, {
        acquire: nothing,
        status: nothing,
        models: () => [],
        left: () => nothing,
        replace: () => (++tries === 1 ? Effect.die(new Error("a mistake of ours")) : Effect.void)
      })
      const files = FileSystem.layerNoop({ readFileString: () => Effect.sync(() => text) })
      yield* Layer.build(
        Configuration.layerReload({ file: "llm.config.yaml", text, settings: {} }, (settings) =>
          Configuration.environment(settings, {})
        ).pipe(
          Layer.provide([
            pipeline,
            files,
            Logger.layer([Logger.map(Logger.formatLogFmt, (line) => void logs.push(line))])
          ])
        )
      )
      const change = (to: string) => {
        text = to
        return TestClock.adjust("1 second")
      }

      yield* change('{ "retries": { "times": 1 } }')
      assert.include(logs.join("\n"), "llm.config.yaml could not be put in force")
      assert.include(logs.join("\n"), "a mistake of ours")
      assert.include(logs.join("\n"), "The configuration before it stays in force.")
      yield* change('{ "retries": { "times": 2 } }')
      assert.include(logs.join("\n"), "llm.config.yaml is in force from now on")
      assert.strictEqual(tries, 2)
    })
  )

  it.live(
    "that changes counts for new calls and drops no stream, and a broken one changes nothing",
    () =>
      Effect.gen(function* () {
        const data = yield* folder
        const file = join(data, "llm.config.json")
        const held = yield* HeldUpstream.make
        const simulator = yield* Simulator.make()
        writeFileSync(file, deployments({ before: held.url }))
        const port = yield* Program.freePort
        const program = yield* Program.start(["--port", String(port), "--config", file], {
          LLM_DATA: data,
          UPSTREAM_KEY: "sk-upstream"
        })
        yield* program.shows("Ctrl-C stops it.")
        const { completions } = new OpenAI({
          baseURL: `http://127.0.0.1:${port}/v1`,
          apiKey: "any",
          maxRetries: 0
        }).chat
        /** A model of the configuration is there without a question to anybody. */
        const isKnown = (model: string) =>
          Effect.promise(async () => {
            const answer = await fetch(`http://127.0.0.1:${port}/v1/models/${model}`)
            return (await answer.text()).includes('"owned_by":"gateway"')
          })
        // As editors and container platforms do: another file in its place.
        const write = (text: string) =>
          Effect.sync(() => {
            writeFileSync(`${file}.new`, text)
            renameSync(`${file}.new`, file)
          })

        const stream = yield* Effect.promise(() =>
          completions.create({ ...question("Why?", "before"), stream: true })
        )
        const pieces = stream[Symbol.asyncIterator]()
        const next = Effect.map(
          Effect.promise(() => pieces.next()),
          ({ done, value }) => (done === true ? undefined : (value.choices[0]?.delta.content ?? ""))
        )
        assert.strictEqual(yield* next, HeldUpstream.words[0])

        yield* write('{ "deployments": [{ "name": 1 }] }')
        yield* program.logs("The configuration before it stays in force.")
        yield* program.logs("deployments[0].name")
        assert.isTrue(yield* isKnown("before"))

        yield* write(deployments({ after: simulator.url }))
        yield* program.logs("is in force from now on")
        assert.deepStrictEqual([yield* isKnown("before"), yield* isKnown("after")], [false, true])
        const reply = yield* Effect.promise(() => completions.create(question("Why?", "after")))
        assert.isNotEmpty(reply.choices[0]?.message.content)

        yield* held.release
        const rest: Array<string> = []
        for (let text = yield* next; text !== undefined; text = yield* next) rest.push(text)
        assert.strictEqual(rest.join(""), HeldUpstream.words.slice(1).join(""))

        program.child.kill("SIGHUP")
        yield* program.logs("is in force from now on", 2)
        yield* write(JSON.stringify({ keys: { required: true } }))
        yield* program.logs("are read at the start only: restart for these")
      }),
    60_000
  )

  it.live(
    "that took over while the gateway ran has its streams drained like the first one",
    () =>
      Effect.gen(function* () {
        const data = yield* folder
        const file = join(data, "llm.config.json")
        const held = yield* HeldUpstream.make
        writeFileSync(file, deployments({ before: held.url }))
        const port = yield* Program.freePort
        const program = yield* Program.start(["--port", String(port), "--config", file], {
          LLM_DATA: data,
          UPSTREAM_KEY: "sk-upstream"
        })
        yield* program.shows("Ctrl-C stops it.")
        writeFileSync(file, deployments({ after: held.url }))
        yield* program.logs("is in force from now on")
        const { completions } = new OpenAI({
          baseURL: `http://127.0.0.1:${port}/v1`,
          apiKey: "any",
          maxRetries: 0
        }).chat
        const stream = yield* Effect.promise(() =>
          completions.create({ ...question("Why?", "after"), stream: true })
        )
        const texts: Array<string> = []
        const read = Effect.promise(async () => {
          for await (const chunk of stream) {
            const text = chunk.choices[0]?.delta.content ?? ""
            if (texts.push(text) === 1) program.child.kill("SIGTERM")
          }
        })
        const reading = yield* Effect.forkChild(read, { startImmediately: true })
        while (yield* RawConnection.accepts(port)) yield* Effect.yieldNow
        yield* held.release
        yield* Fiber.join(reading)
        assert.strictEqual(texts.join(""), HeldUpstream.words.join(""))
        assert.strictEqual((yield* program.ended).code, 0)
      }),
    60_000
  )
})
