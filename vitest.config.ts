import { defineConfig } from "vitest/config"

/** For editors and for `pnpm exec vitest` at the root; `pnpm test` runs each package by itself, cached. */
export default defineConfig({ test: { projects: ["packages/*", "apps/*", "examples"] } })
