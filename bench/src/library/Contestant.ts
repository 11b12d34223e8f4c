/** What the library measurement asks of a client of the OpenAI API. */
import type * as Canned from "../Canned.ts"

export interface Contestant {
  /** One chat call; returns the text of the answer. */
  readonly chat: (model: Canned.Model) => Promise<string>
  /** One streamed chat call, read to its end; returns how many pieces of text were seen. */
  readonly stream: (model: Canned.Model) => Promise<number>
  /** One streamed chat call with `Canned.tool`, read to its end; returns the arguments, put together from their pieces. */
  readonly tools: (model: Canned.Model) => Promise<string>
  /** The embeddings of `Canned.texts`; returns how many numbers they are. */
  readonly embed: (model: Canned.Model) => Promise<number>
}

/** Builds the client for an upstream; the base URL ends in `/v1`. */
export type Make = (baseUrl: string) => Promise<Contestant>
