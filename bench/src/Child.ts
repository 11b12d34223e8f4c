/** A process under measurement (or the upstream), started with the probe and asked over IPC. */
import { spawn } from "node:child_process"
import * as Schema from "effect/Schema"
import * as ProcessTree from "./ProcessTree.ts"

/** CPU time (user and system, all threads) since the start in microseconds; resident memory in bytes. */
interface Usage {
  readonly cpu: number
  readonly rss: number
}

export interface Child extends AsyncDisposable {
  readonly name: string
  /** Sends one question and returns the next message. Rejects when the process ends first or stays silent. */
  readonly ask: (question: string | object) => Promise<unknown>
  readonly usage: () => Promise<Usage>
  /** Sends SIGTERM; resolves when the process is gone. */
  readonly stop: () => Promise<void>
  /** Rejects with what the process printed when it ends before it is disposed. */
  readonly ended: Promise<never>
}

export interface Options {
  readonly name: string
  /** A program of Node's, unless it is `native`. */
  readonly file: URL
  /** An executable of its own: it answers no questions, and its usage is what Linux counts. */
  readonly native?: boolean
  /** Flags of Node's own. */
  readonly flags?: ReadonlyArray<string>
  /** The working directory. */
  readonly folder?: string
  readonly arguments?: ReadonlyArray<string>
  readonly environment?: Readonly<Record<string, string>>
}

const answerMillis = 60_000
const probe = new URL("./children/probe.ts", import.meta.url).href
const decodeUsage = Schema.decodeUnknownSync(Schema.Struct({ cpu: Schema.Number, rss: Schema.Number }))

export const start = (options: Options): Child => {
  const { arguments: given = [], file, flags = [], native = false } = options
  const node = [...flags, "--import", probe, "--disable-warning=ExperimentalWarning", file.pathname]
  // Nothing of the person's environment is passed on: a real key or base URL must not reach a contestant.
  const child = spawn(native ? file.pathname : process.execPath, native ? given : [...node, ...given], {
    cwd: options.folder,
    env: { PATH: process.env["PATH"], NODE_ENV: "production", ...options.environment },
    stdio: ["ignore", "pipe", "pipe", "ipc"],
    serialization: "advanced"
  })
  let printed = ""
  const keep = (text: Buffer) => (printed = (printed + text.toString()).slice(-2_000))
  child.stdout?.on("data", keep)
  child.stderr?.on("data", keep)
  const exited = new Promise<void>((resolve) => child.once("exit", () => resolve()))
  const endedEarly = () => new Error(`${options.name} ended early:\n${printed}`)
  const ended = exited.then(() => Promise.reject(endedEarly()))
  ended.catch(() => {})

  const ask = (question: string | object) =>
    new Promise<unknown>((resolve, reject) => {
      const settle = (then: () => void) => {
        clearTimeout(timer)
        child.off("message", onMessage).off("exit", onExit)
        then()
      }
      const onMessage = (message: unknown) => settle(() => resolve(message))
      const onExit = () => settle(() => reject(endedEarly()))
      const timer = setTimeout(
        () => settle(() => reject(new Error(`${options.name} did not answer:\n${printed}`))),
        answerMillis
      )
      child.on("message", onMessage).on("exit", onExit)
      if (child.exitCode !== null) onExit()
      else if (question !== "") child.send(question)
    })

  return {
    name: options.name,
    ask,
    ended,
    usage: async () => (native ? ProcessTree.usage(child.pid ?? -1) : decodeUsage(await ask("usage"))),
    stop: () => {
      child.kill("SIGTERM")
      return exited
    },
    [Symbol.asyncDispose]: () => {
      child.kill("SIGKILL")
      return exited
    }
  }
}

/** The answer to no question: what the process says on its own once it is ready. */
export const greeting = (child: Child) => child.ask("")
