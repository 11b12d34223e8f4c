/** What the policies measurement asks of a contestant. */

/** Makes so many calls; resolves once all have ended. */
export type Work = (count: number) => Promise<unknown>

/**
 * Prepares one kind of work.
 *
 * @param size what grows: keys, entries, deployments or calls at once; 1 where nothing does
 */
export type Prepare = (size: number) => Promise<Work>

/** The kinds of work that a contestant can do, by name. */
export type Contestant = Readonly<Record<string, Prepare>>

/** What every call asks for: an answer that comes at once. */
export const answer = async (): Promise<number> => 1

/** How many calls run at once where a limit is at work. */
export const limit = 16

/** One after the other. */
export const inTurn =
  (one: () => PromiseLike<unknown>): Work =>
  async (count) => {
    for (let index = 0; index < count; index++) await one()
  }

/** So many at once, so that all but `limit` of them wait. */
export const atOnce =
  (size: number, one: () => PromiseLike<unknown>): Work =>
  async (count) => {
    for (let done = 0; done < count; done += size) await Promise.all(Array.from({ length: size }, one))
  }
