/**
 * The two streams of a terminal program: answers on stdout, everything else on stderr.
 *
 * **Details**
 *
 * Whether a stream is a terminal decides the form of what is written, never its content: pieces arrive
 * as they come in both cases, but a terminal gets no control characters of the model's and, on stderr,
 * one status line that is rewritten in place.
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"

/** What the global flags say of the form. */
export interface Options {
  readonly json: boolean
  readonly noColor: boolean
}

/** The service that writes. */
export class Screen extends Context.Service<
  Screen,
  {
    readonly json: boolean
    readonly stdoutIsTerminal: boolean
    readonly stderrIsTerminal: boolean
    /** How wide stderr is, in characters; 80 where nobody knows. */
    readonly columns: () => number
    /** A piece of the answer; waits while the reader is slow. */
    readonly answer: (text: string) => Effect.Effect<void>
    /** Ends the answer with a line feed, unless it has one or there was none. */
    readonly endAnswer: Effect.Effect<void>
    /** A line beside the answer. */
    readonly note: (line: string) => Effect.Effect<void>
    /** Replaces the status line of a terminal; nothing elsewhere. */
    readonly status: (line: string) => Effect.Effect<void>
    readonly dim: (text: string) => string
    readonly red: (text: string) => string
  }
>()("@llm/cli/Screen") {}

/** Control characters other than line feed and tab: a model must not steer the terminal. */
const controls = /[^\P{Cc}\n\t]/gu

/** Text that steers no terminal. */
export const withoutControls = (text: string): string => text.replace(controls, "")

const eraseLine = "\r\u001B[K"

const write = (stream: NodeJS.WriteStream, text: string): Effect.Effect<void> =>
  Effect.callback((resume) => {
    // A reader that is gone is told by the stream's `error` event, which ends the program.
    stream.write(text, () => resume(Effect.void))
  })

/** A terminal that does not know tells 0, what is none `undefined`. */
const columns = (): number => Math.max(20, process.stderr.columns || 80)

const environment = Config.all({
  noColor: Config.option(Config.String("NO_COLOR")),
  terminal: Config.option(Config.String("TERM"))
})

/** Makes the screen of this process. */
export const make = Effect.fnUntraced(function* (options: Options) {
  const { noColor, terminal } = yield* Effect.orDie(environment)
  const stdoutIsTerminal = process.stdout.isTTY === true
  const stderrIsTerminal = process.stderr.isTTY === true
  const dumb = Option.contains(terminal, "dumb")
  const colors = stderrIsTerminal && !dumb && !options.noColor && Option.isNone(noColor)
  const paint = (code: number) => (text: string) => (colors ? `\u001B[${code}m${text}\u001B[0m` : text)

  let open = false
  let statusShown = false
  const clearStatus = Effect.suspend(() => {
    if (!statusShown) return Effect.void
    statusShown = false
    return write(process.stderr, eraseLine)
  })

  return Screen.of({
    json: options.json,
    stdoutIsTerminal,
    stderrIsTerminal,
    columns,
    answer: (text) => {
      const shown = stdoutIsTerminal ? withoutControls(text) : text
      if (shown === "") return Effect.void
      return Effect.andThen(
        clearStatus,
        Effect.suspend(() => {
          open = !shown.endsWith("\n")
          return write(process.stdout, shown)
        })
      )
    },
    endAnswer: Effect.suspend(() => {
      if (!open) return clearStatus
      open = false
      return write(process.stdout, "\n")
    }),
    note: (line) => Effect.andThen(clearStatus, write(process.stderr, `${line}\n`)),
    status: (line) =>
      Effect.suspend(() => {
        if (!stderrIsTerminal || dumb || open) return Effect.void
        statusShown = true
        return write(process.stderr, `${eraseLine}${paint(2)(line.slice(0, columns() - 1))}`)
      }),
    dim: paint(2),
    red: paint(31)
  })
})
