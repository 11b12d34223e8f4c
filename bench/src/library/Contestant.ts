/** What the library measurement asks of a client of the chat API. */
import type * as Canned from "../Canned.ts"

export interface Contestant {
  /** One chat call; returns the text of the answer. */
  readonly chat: (model: Canned.Model) => Promise<string>
  /** One streamed chat call, read to its end; returns how many chunks with a choice were seen. */
  readonly stream: (model: Canned.Model) => Promise<number>
}

/** Builds the client for an upstream; the base URL ends in `/v1`. */
export type Make = (baseUrl: string) => Promise<Contestant>
