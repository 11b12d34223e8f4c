/** The gateway as a process of its own, in front of a simulator of the test's own, and `oa` pointed at it. */
import { Simulator } from "@llm/simulator"
import { Context, Effect, Layer } from "effect"
import { spawn } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import * as Net from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { type Options, pointedAt, run, secret } from "./Oa.ts"

const program = fileURLToPath(new URL("../../../api/src/main.ts", import.meta.url))

/** Below the ports that the system gives out, which others take at any time. */
const freePort = Effect.callback<number>((resume) => {
  const look = (port: number) => {
    const server = Net.createServer()
    server.once("error", () => look(port + 1))
    server.listen(port, "127.0.0.1", () => server.close(() => resume(Effect.succeed(port))))
  }
  look(10_000 + (process.pid % 10_000))
})

/** Starts both; they end with the scope. */
const make = Effect.fnUntraced(function* (config: string) {
  const simulator = yield* Simulator.make()
  const port = yield* freePort
  const url = `http://127.0.0.1:${port}/v1`
  yield* Effect.acquireRelease(
    Effect.callback<() => void>((resume) => {
      const folder = mkdtempSync(join(tmpdir(), "oa-gateway-"))
      const file = join(folder, "llm.config.yaml")
      writeFileSync(file, `server: { port: ${port} }\n${config.replaceAll("UPSTREAM", simulator.url)}`)
      const child = spawn(process.execPath, [program, "--config", file], {
        cwd: folder,
        env: { PROVIDER_KEY: secret, NODE_COMPILE_CACHE: join(tmpdir(), "node-compile-cache") }
      })
      let output = ""
      for (const stream of [child.stdout, child.stderr]) {
        stream.setEncoding("utf8").on("data", (text: string) => {
          output += text
          if (output.includes(url)) resume(Effect.succeed(() => child.kill("SIGKILL")))
        })
      }
      child.on("close", () => {
        rmSync(folder, { recursive: true, force: true })
        resume(Effect.die(new Error(`the gateway ended: ${output}`)))
      })
      return Effect.sync(() => child.kill("SIGKILL"))
    }),
    (close) => Effect.sync(close)
  )
  return {
    simulator,
    oa: (args: ReadonlyArray<string>, more: Options = {}) =>
      run(args, { ...more, env: pointedAt(url, more.env) })
  }
})

/** The two of a test file. */
export class Gateway extends Context.Service<Gateway, Effect.Success<ReturnType<typeof make>>>()(
  "@llm/cli/test/Gateway"
) {}

/**
 * @param config what its configuration file says, beside where it listens; `UPSTREAM` stands for the simulator's URL
 */
export const layer = (config: string) => Layer.effect(Gateway, make(config))
