/** Runs the built program as a person's shell would: its own process, its own streams, a bare environment. */
import { Simulator } from "@llm/simulator"
import { Effect, type Scope } from "effect"
import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process"
import { existsSync } from "node:fs"
import { fileURLToPath } from "node:url"

/** The bundle that is under test. */
export const program = fileURLToPath(new URL("../../dist/oa.js", import.meta.url))

if (!existsSync(program)) throw new Error("dist/oa.js is missing: run the build first")

/** How a run ended, with all that it wrote. */
export interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

export interface Options {
  readonly env?: Readonly<Record<string, string>>
  /** Text on stdin, which then ends; `open` leaves it silent and open. An ended, empty pipe unless told. */
  readonly stdin?: string | { readonly open: true }
}

/** A run that goes on. */
export interface Running {
  readonly child: ChildProcessWithoutNullStreams
  /** Resolves once stdout, or stderr, holds the text. */
  readonly shows: (stream: "stdout" | "stderr", text: string | RegExp) => Effect.Effect<void>
  readonly ended: Effect.Effect<Ended>
  /** What stdout holds so far. */
  readonly stdout: () => string
}

/** Starts a run; what is left of it is killed when the scope closes. */
export const start = (
  args: ReadonlyArray<string>,
  options: Options = {}
): Effect.Effect<Running, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const child = spawn(process.execPath, [program, ...args], {
        env: { PATH: process.env["PATH"] ?? "", ...options.env }
      })
      const output = { stdout: "", stderr: "" }
      const listeners = new Set<() => void>()
      for (const name of ["stdout", "stderr"] as const) {
        child[name].setEncoding("utf8").on("data", (text: string) => {
          output[name] += text
          for (const listener of listeners) listener()
        })
      }
      // A program that fails early leaves its stdin unread.
      child.stdin.on("error", () => {})
      if (typeof options.stdin !== "object") child.stdin.end(options.stdin ?? "")
      const closed = new Promise<Ended>((resolve) => {
        child.on("close", (code, signal) => resolve({ code, signal, ...output }))
      })
      const running: Running = {
        child,
        ended: Effect.promise(() => closed),
        stdout: () => output.stdout,
        shows: (name, text) =>
          Effect.callback((resume) => {
            const check = () => {
              const shown = typeof text === "string" ? output[name].includes(text) : text.test(output[name])
              if (!shown) return
              listeners.delete(check)
              resume(Effect.void)
            }
            listeners.add(check)
            check()
            return Effect.sync(() => listeners.delete(check))
          })
      }
      return running
    }),
    ({ child }) => Effect.sync(() => child.kill("SIGKILL"))
  )

/** Runs to the end. */
export const run = (args: ReadonlyArray<string>, options?: Options): Effect.Effect<Ended> =>
  Effect.scoped(Effect.flatMap(start(args, options), ({ ended }) => ended))

/** A key that must never be seen. */
export const secret = "sk-proj-thisIsAVerySecretKey1234"

/** An environment that points at a server, with quick retries. */
export const pointedAt = (url: string, env: Readonly<Record<string, string>> = {}) => ({
  OPENAI_API_KEY: secret,
  OPENAI_BASE_URL: url,
  LLM_RETRY_BASE: "1 millis",
  LLM_RETRY_CAP: "2 millis",
  ...env
})

/** A simulator of the test's own, and `oa` pointed at it. */
export const simulated = (options?: Simulator.Options) =>
  Effect.map(Simulator.make(options), (simulator) => ({
    simulator,
    oa: (args: ReadonlyArray<string>, more: Options = {}) =>
      run(args, { ...more, env: pointedAt(simulator.url, more.env) }),
    begin: (args: ReadonlyArray<string>, more: Options = {}) =>
      start(args, { ...more, env: pointedAt(simulator.url, more.env) })
  }))

/** The lines that hold something. */
export const lines = (text: string): ReadonlyArray<string> => text.split("\n").filter((line) => line !== "")
