import { defineConfig } from "vitest/config"

export default defineConfig({
  test: {
    // Only with `--coverage`.
    coverage: {
      include: ["src/**/*.ts"],
      reporter: ["text-summary", "json-summary"],
      reportsDirectory: ".reports/coverage",
      thresholds: { statements: 90 }
    }
  }
})
