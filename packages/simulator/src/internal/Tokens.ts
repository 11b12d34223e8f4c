/** The simulator's own idea of a token: a word with the space before it, long words in pieces. */

/** Splits a text so that the pieces joined are the text, and no piece cuts a character. */
export const split = (text: string): ReadonlyArray<string> => text.match(/\s*\S{1,12}|\s+$/gu) ?? []

/** Tokens of a text that is read, not written: a quarter of its bytes, rounded up. */
export const estimate = (text: string): number => Math.ceil(Buffer.byteLength(text) / 4)
