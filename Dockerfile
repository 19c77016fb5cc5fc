# One image for each process: docker build --target gateway -t jobs-gateway . (or reaper). How to run them:
# docs/operations.md.
ARG NODE_IMAGE=node:24-bookworm-slim

FROM $NODE_IMAGE AS build
WORKDIR /source
COPY . .
RUN npx -y pnpm@12 install --frozen-lockfile \
  && npx -y pnpm@12 build \
  && for app in gateway reaper; do npx -y pnpm@12 --filter @jobs/$app --prod --legacy deploy /out/$app; done

FROM $NODE_IMAGE AS base
ENV NODE_ENV=production
WORKDIR /app
USER 65534:65534
# Node handles SIGTERM itself and starts no children: it may be the container's first process.
CMD ["node", "src/main.ts"]

FROM base AS reaper
COPY --from=build /out/reaper .
ENV REAPER_OPS_HOST=0.0.0.0
EXPOSE 9102

FROM base AS gateway
COPY --from=build /out/gateway .
# Where V8 may let the young generation grow to 64 MiB, an idle connection keeps 15 KB in place of 9: see bench/README.md.
ENV GATEWAY_HOST=0.0.0.0 GATEWAY_OPS_HOST=0.0.0.0 NODE_OPTIONS=--max-semi-space-size=16
EXPOSE 8080 9101
