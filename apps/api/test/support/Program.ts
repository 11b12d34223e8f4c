/** The program itself, as a process of its own with an environment of its own. */
import * as Effect from "effect/Effect"
import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import * as Net from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

const main = fileURLToPath(new URL("../../src/main.ts", import.meta.url))

/** Saves a third of each start. */
const compileCache = { NODE_COMPILE_CACHE: join(tmpdir(), "node-compile-cache") }

/** How a run ended, with all that it wrote. */
export interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

/** A run that goes on. */
export interface Running {
  readonly child: ChildProcessWithoutNullStreams
  /** Resolves once the text stands on stdout; a defect when the program ends without it. */
  readonly shows: (text: string) => Effect.Effect<void>
  /** The same of stderr, where the log is, and of so many times; once unless told. */
  readonly logs: (text: string, times?: number) => Effect.Effect<void>
  /** What it wrote on stdout so far. */
  readonly stdout: () => string
  readonly ended: Effect.Effect<Ended>
}

/** Starts a run; what is left of it is killed with the scope. */
export const start = (args: ReadonlyArray<string>, environment: Readonly<Record<string, string>> = {}) =>
  Effect.acquireRelease(
    Effect.sync((): Running => {
      const data = mkdtempSync(join(tmpdir(), "llm-gateway-"))
      const child = spawn(process.execPath, [main, ...args], {
        env: { ...compileCache, LLM_DATA: data, ...environment }
      })
      child.on("close", () => rmSync(data, { recursive: true, force: true }))
      const output = { stdout: "", stderr: "" }
      const listeners = new Set<() => void>()
      let over = false
      const changed = () => {
        for (const listener of listeners) listener()
      }
      for (const name of ["stdout", "stderr"] as const) {
        child[name].setEncoding("utf8").on("data", (text: string) => {
          output[name] += text
          changed()
        })
      }
      const closed = new Promise<Ended>((resolve) => {
        child.on("close", (code, signal) => {
          over = true
          changed()
          resolve({ code, signal, ...output })
        })
      })
      const says = (name: keyof typeof output, text: string, times: number) =>
        Effect.callback<void>((resume) => {
          const look = () => {
            const found = output[name].split(text).length > times
            if (!found && !over) return
            listeners.delete(look)
            resume(found ? Effect.void : Effect.die(new Error(`ended without "${text}": ${output.stderr}`)))
          }
          listeners.add(look)
          look()
        })
      return {
        child,
        ended: Effect.promise(() => closed),
        stdout: () => output.stdout,
        shows: (text) => says("stdout", text, 1),
        logs: (text, times = 1) => says("stderr", text, times)
      }
    }),
    ({ child }) => Effect.sync(() => child.kill("SIGKILL"))
  )

/** Runs to the end. */
export const run = (args: ReadonlyArray<string>, environment?: Readonly<Record<string, string>>) =>
  Effect.scoped(Effect.flatMap(start(args, environment), ({ ended }) => ended))

/** Listens for as long as the scope lives; `undefined` where the port is taken. */
export const listen = (port: number) =>
  Effect.acquireRelease(
    Effect.callback<Net.Server | undefined>((resume) => {
      const server = Net.createServer()
      server.once("error", () => resume(Effect.succeed(undefined)))
      server.listen(port, "127.0.0.1", () => resume(Effect.succeed(server)))
    }),
    (server) => Effect.sync(() => server?.close())
  )

/**
 * A port that nobody listens on, below those that the system gives to connections of its own, and apart from
 * those of other test processes: the next nine are free too.
 */
export const freePort: Effect.Effect<number> = Effect.gen(function* () {
  for (let port = 20_000 + ((process.pid * 10) % 12_000); ; port++) {
    const server = yield* Effect.scoped(listen(port))
    if (server !== undefined) return port
  }
})
