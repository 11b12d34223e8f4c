/**
 * Text from standard input, without ever hanging on an input that stays silent.
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Fs from "node:fs"
import { isatty } from "node:tty"
import { UsageError } from "./Failure.ts"
import { Screen } from "./Screen.ts"

/** What is attached: `none` is a closed input or a device such as `/dev/null`. */
export type Kind = "terminal" | "file" | "pipe" | "none"

/** The service that reads. */
export class Stdin extends Context.Service<
  Stdin,
  {
    readonly kind: Kind
    /**
     * All text that comes, `""` where nothing does.
     *
     * Once the first byte is there it reads to the end. Until then: after a second it says on stderr
     * that it waits; a person at the terminal may let it wait, else it fails with `UsageError` after `wait`.
     *
     * @param options.wait the longest silence before the first byte
     * @param options.asked the caller named stdin (`-`), so that silence is waited for without end
     */
    readonly text: (options: {
      readonly wait: Duration.Duration
      readonly asked: boolean
    }) => Effect.Effect<string, UsageError, Screen>
  }
>()("@llm/cli/Stdin") {}

/** What file descriptor 0 is attached to. */
const kindOf = (): Kind => {
  if (isatty(0)) return "terminal"
  try {
    const stat = Fs.fstatSync(0)
    if (stat.isFile()) return "file"
    return stat.isFIFO() || stat.isSocket() ? "pipe" : "none"
  } catch {
    return "none"
  }
}

const noticeAfter = Duration.seconds(1)

const decode = (bytes: Uint8Array): Effect.Effect<string, UsageError> =>
  Effect.try({
    try: () => new TextDecoder("utf-8", { fatal: true }).decode(bytes),
    catch: () =>
      new UsageError({
        message: "stdin is not UTF-8 text",
        hint: "convert it first, or leave it out with --no-stdin"
      })
  })

/** Bytes to the end; `onFirst` is called with the first ones. */
const readAll = (onFirst: () => void): Effect.Effect<Uint8Array, UsageError> =>
  Effect.callback((resume) => {
    const { stdin } = process
    const chunks: Array<Buffer> = []
    const onData = (chunk: Buffer) => {
      if (chunks.length === 0) onFirst()
      chunks.push(chunk)
    }
    const onEnd = () => resume(Effect.succeed(Buffer.concat(chunks)))
    const onError = (error: Error) =>
      resume(Effect.fail(new UsageError({ message: `stdin cannot be read: ${error.message}` })))
    stdin.on("data", onData).once("end", onEnd).once("error", onError)
    return Effect.sync(() => {
      stdin.off("data", onData).off("end", onEnd).off("error", onError)
      stdin.destroy()
    })
  })

/** Standard input of this process. */
export const layer: Layer.Layer<Stdin> = Layer.sync(Stdin, () => {
  const kind = kindOf()
  return Stdin.of({
    kind,
    text: Effect.fnUntraced(function* ({ asked, wait }) {
      if (kind === "none" || (kind === "terminal" && !asked)) return ""
      const screen = yield* Screen
      let silent = true
      const watch = Effect.gen(function* () {
        yield* Effect.sleep(Duration.min(noticeAfter, wait))
        if (!silent) return yield* Effect.never
        if (screen.stderrIsTerminal) {
          yield* screen.note("waiting for stdin… --no-stdin to skip, Ctrl-C to stop")
          return yield* Effect.never
        }
        if (!screen.json) yield* screen.note("waiting for stdin… --no-stdin to skip")
        yield* Effect.sleep(Duration.subtract(wait, Duration.min(noticeAfter, wait)))
        if (!silent) return yield* Effect.never
        return yield* new UsageError({
          message: `stdin is open but silent for ${Duration.format(wait)}; nothing was sent`,
          hint: "--no-stdin or </dev/null to leave it out, - as a prompt to wait for it, --stdin-wait to wait longer"
        })
      })
      const reading = readAll(() => {
        silent = false
      })
      const bytes = yield* kind === "pipe" && !asked ? Effect.raceFirst(reading, watch) : reading
      return yield* decode(bytes)
    })
  })
})
