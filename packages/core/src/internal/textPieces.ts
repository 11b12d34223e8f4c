/**
 * Cuts a text into pieces that a byte pair encoder takes in bounded time.
 *
 * The encoder's work grows with the square of the longest run that its pattern does not split, such as a
 * megabyte of one letter. Between words a cut changes no count; inside a run it may, and is reported.
 */

/** The most code units of a run that stays whole: longer than any word, a line of dashes, or a sentence in Thai. */
export const longestRun = 256

/** About how much is counted before other fibers get their turn, in code units. */
export const chunkLength = 8192

/** The text is the pieces in order. */
export interface Pieces {
  readonly pieces: ReadonlyArray<string>
  /** A run was cut: the count of the whole may differ from the sum. */
  readonly cut: boolean
}

const isLineEnd = (code: number): boolean => code === 10 || code === 13

const isBlank = (code: number): boolean => code === 32 || (code >= 9 && code <= 13)

/** Printable ASCII: surely no white space. */
const isPrinting = (code: number): boolean => code > 32 && code < 127

/** Whether a run may be too long: one pass without a pattern, since hardly any text has one. */
const mayHaveLongRun = (text: string): boolean => {
  let blank = 0
  let solid = 0
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index)
    blank = isBlank(code) ? blank + 1 : 0
    // o200k_base takes punctuation, slashes and line ends as one.
    solid = !isBlank(code) || isLineEnd(code) ? solid + 1 : 0
    if (blank > longestRun || solid > longestRun) return true
  }
  return false
}

// Every alternative is greedy and none has two ways to match: linear, whatever the text.
const runs = /[\p{L}\p{M}]+|(?:[^\s\p{L}\p{N}]|[\r\n])+|\s+/gu
const runsAndNumbers = /[\p{L}\p{M}]+|(?:[^\s\p{L}\p{N}]|[\r\n])+|\s+|\p{N}+/gu

const isHighSurrogate = (code: number): boolean => code >= 0xd800 && code <= 0xdbff

const splitRuns = (text: string, pattern: RegExp): Array<string> => {
  const pieces: Array<string> = []
  let from = 0
  for (const { 0: run, index } of text.matchAll(pattern)) {
    const end = index + run.length
    let at = index + longestRun
    while (at < end) {
      if (isHighSurrogate(text.charCodeAt(at - 1))) at -= 1
      pieces.push(text.slice(from, at))
      from = at
      at += longestRun
    }
  }
  pieces.push(text.slice(from))
  return pieces
}

/** Cuts before a space that follows a word: every encoding's pattern splits there. */
const splitWords = (text: string, pieces: Array<string>): void => {
  let from = 0
  while (text.length - from > chunkLength) {
    let at = from + chunkLength
    while (at < text.length && !(text.charCodeAt(at) === 32 && isPrinting(text.charCodeAt(at - 1)))) at += 1
    pieces.push(text.slice(from, at))
    from = at
  }
  if (from < text.length) pieces.push(text.slice(from))
}

/**
 * @param numbers whether the encoding takes a number as a whole; the current ones take three digits at a time
 */
export const split = (text: string, numbers: boolean): Pieces => {
  if (text.length <= longestRun) return { pieces: [text], cut: false }
  const parts = mayHaveLongRun(text) ? splitRuns(text, numbers ? runsAndNumbers : runs) : [text]
  const pieces: Array<string> = []
  for (const part of parts) splitWords(part, pieces)
  return { pieces, cut: parts.length > 1 }
}
