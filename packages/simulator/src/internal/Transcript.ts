/** What is said in a sound file that nobody has listened to: decided by its bytes, as long as it lasts. */
import * as Prose from "./Prose.ts"

interface Word {
  readonly text: string
  /** Seconds from the beginning. */
  readonly start: number
  readonly end: number
}

/** A sentence. */
interface Segment {
  readonly text: string
  readonly start: number
  readonly end: number
  readonly words: ReadonlyArray<Word>
}

export interface Transcript {
  readonly text: string
  readonly seconds: number
  readonly segments: ReadonlyArray<Segment>
}

/** As people speak. */
export const wordsPerSecond = 2.5
/** No longer text, however long the silence. */
const maxWords = 20_000

/** An invented text about the words of `topic`. */
export const invent = (hash: number, topic: string, seconds: number): string => {
  const wanted = Math.min(maxWords, Math.max(1, Math.round(seconds * wordsPerSecond)))
  // The shortest sentence has six words.
  const words = Prose.answer(topic, hash, Math.ceil(wanted / 6))
    .split(" ")
    .slice(0, wanted)
  return `${words.join(" ").replace(/[^\p{L}\p{N}]+$/u, "")}.`
}

/** Lays the words of a text over its time, each as long as it is written. */
export const make = (text: string, seconds: number): Transcript => {
  const sentences = text.match(/\S[^.!?]*[.!?]*/gu) ?? []
  const letters = sentences.reduce((sum, sentence) => sum + sentence.trimEnd().length + 1, 0)
  let spoken = 0
  const time = () => Math.round((spoken / Math.max(1, letters)) * seconds * 100) / 100
  const segments = sentences.map((sentence): Segment => {
    const words = sentence
      .trimEnd()
      .split(/\s+/u)
      .map((word): Word => {
        const start = time()
        spoken += word.length + 1
        return { text: word, start, end: time() }
      })
    return {
      text: sentence.trimEnd(),
      start: words[0]?.start ?? 0,
      end: words.at(-1)?.end ?? 0,
      words
    }
  })
  return { text, seconds, segments }
}

/** Subtitles: a block of a number, a time and a text for each sentence. */
export const srt = ({ segments }: Transcript): string =>
  segments
    .map(
      ({ end, start, text }, index) =>
        `${index + 1}\n${clock(start, ",")} --> ${clock(end, ",")}\n${text}\n\n`
    )
    .join("")

export const vtt = ({ segments }: Transcript): string =>
  `WEBVTT\n\n${segments
    .map(({ end, start, text }) => `${clock(start, ".")} --> ${clock(end, ".")}\n${text}\n\n`)
    .join("")}`

const clock = (seconds: number, point: string): string => {
  const milliseconds = Math.round(seconds * 1000)
  const two = (value: number) => String(Math.floor(value)).padStart(2, "0")
  return `${two(milliseconds / 3_600_000)}:${two((milliseconds / 60_000) % 60)}:${two((milliseconds / 1000) % 60)}${point}${String(milliseconds % 1000).padStart(3, "0")}`
}
