/** A process under measurement (or the upstream), started with the probe and asked over IPC. */
import { spawn } from "node:child_process"
import * as Schema from "effect/Schema"

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
  /** Rejects with what the process printed when it ends before it is disposed. */
  readonly ended: Promise<never>
}

export interface Options {
  readonly name: string
  readonly file: URL
  readonly arguments?: ReadonlyArray<string>
  readonly environment?: Readonly<Record<string, string>>
}

const answerMillis = 60_000
const probe = new URL("./children/probe.ts", import.meta.url).href
const decodeUsage = Schema.decodeUnknownSync(Schema.Struct({ cpu: Schema.Number, rss: Schema.Number }))

export const start = (options: Options): Child => {
  // Nothing of the person's environment is passed on: a real key or base URL must not reach a contestant.
  const child = spawn(
    process.execPath,
    [
      "--import",
      probe,
      "--disable-warning=ExperimentalWarning",
      options.file.pathname,
      ...(options.arguments ?? [])
    ],
    {
      env: { PATH: process.env["PATH"], NODE_ENV: "production", ...options.environment },
      stdio: ["ignore", "pipe", "pipe", "ipc"],
      serialization: "advanced"
    }
  )
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
    usage: async () => decodeUsage(await ask("usage")),
    [Symbol.asyncDispose]: () => {
      child.kill("SIGKILL")
      return exited
    }
  }
}

/** The answer to no question: what the process says on its own once it is ready. */
export const greeting = (child: Child) => child.ask("")
