/**
 * Transcripts of the parts of one file, put together to that of the whole.
 */

/** What was said in a part, and where in the whole it begins, in seconds. */
export interface Heard<A> {
  readonly start: number
  readonly seconds: number
  readonly reply: A
}

/** Scripts that are written without spaces between words. */
const unspaced =
  /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}\u3001\u3002\uFF01\uFF1F]$/u

/** The texts one after another. */
export const text = (texts: ReadonlyArray<string>): string =>
  texts
    .map((one) => one.trim())
    .filter((one) => one !== "")
    .reduce((whole, one) => (whole === "" ? one : `${whole}${unspaced.test(whole) ? "" : " "}${one}`), "")

/** To the hundredth of a millisecond: no sum of floats shows. */
const later = (seconds: number, start: number): number => Math.round((seconds + start) * 1e5) / 1e5

/** How long the whole is, in seconds. */
export const end = (parts: ReadonlyArray<Heard<unknown>>): number => {
  const last = parts.at(-1)
  return last === undefined ? 0 : later(last.seconds, last.start)
}

/** Something that was said, with its times. */
interface Timed {
  readonly start: number
  readonly end: number
}

/** Everything with its time in the whole; `undefined` where no part tells any. */
export const times = <A extends Timed>(
  parts: ReadonlyArray<Heard<ReadonlyArray<A> | null | undefined>>
): ReadonlyArray<A> | undefined =>
  parts.every(({ reply }) => reply == null)
    ? undefined
    : parts.flatMap(({ reply, start }) =>
        (reply ?? []).map((one) => ({ ...one, start: later(one.start, start), end: later(one.end, start) }))
      )

const isCounts = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/** Counts of one shape, added up by name; what is no number is as the first one says. */
export const sum = (counts: ReadonlyArray<unknown>): unknown =>
  counts.reduce((left, right) => {
    if (typeof left === "number" && typeof right === "number") return left + right
    if (!isCounts(left) || !isCounts(right)) return left ?? right
    return Object.fromEntries(
      [...new Set([...Object.keys(left), ...Object.keys(right)])].map((name) => [
        name,
        sum([left[name], right[name]])
      ])
    )
  })

const clock = /(?:(\d+):)?(\d\d):(\d\d)([.,])(\d{3})/gu

/** The times of a line of subtitles, moved. */
const moved = (line: string, start: number): string =>
  line.includes("-->")
    ? line.replaceAll(
        clock,
        (_, hours = "0", minutes = "0", seconds = "0", point = ".", milliseconds = "0") => {
          const at = Math.round(
            (Number(hours) * 3600 + Number(minutes) * 60 + Number(seconds) + start) * 1000 +
              Number(milliseconds)
          )
          const two = (value: number) => String(Math.floor(value)).padStart(2, "0")
          return `${two(at / 3_600_000)}:${two((at / 60_000) % 60)}:${two((at / 1000) % 60)}${point}${String(at % 1000).padStart(3, "0")}`
        }
      )
    : line

/** The cues of subtitles, without what stands above the time of each. */
const cuesOf = ({ reply, start }: Heard<string>): ReadonlyArray<string> =>
  reply
    .replaceAll("\r\n", "\n")
    .split(/\n{2,}/u)
    .flatMap((block) => {
      const lines = block.split("\n")
      const at = lines.findIndex((line) => line.includes("-->"))
      if (at === -1) return []
      const [time = "", ...words] = lines.slice(at)
      return [[moved(time, start), ...words].join("\n").trimEnd()]
    })

/** SubRip subtitles, numbered through. */
export const srt = (parts: ReadonlyArray<Heard<string>>): string =>
  parts
    .flatMap(cuesOf)
    .map((cue, index) => `${index + 1}\n${cue}\n\n`)
    .join("")

/** WebVTT subtitles. */
export const vtt = (parts: ReadonlyArray<Heard<string>>): string =>
  `WEBVTT\n\n${parts
    .flatMap(cuesOf)
    .map((cue) => `${cue}\n\n`)
    .join("")}`
