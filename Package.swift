// swift-tools-version: 6.3
// SPDX-License-Identifier: Apache-2.0

import PackageDescription

/// Every target of ours: warnings are errors; debug builds are the *checked* builds (lock order,
/// coverage of guarded state and structure invariants are verified at run time).
let ours: [SwiftSetting] = [
  .treatAllWarnings(as: .error),
  .define("RANGELAND_CHECKS", .when(configuration: .debug)),
  // Who would wait for itself, and locks taken in two orders: see CheckedBuilds.md of RangeLocks.
  .define("RANGELOCKS_CHECKED", .when(configuration: .debug)),
  .define("RANGELOCKS_CHECKED", .when(traits: ["CheckedLocks"])),
]

/// The exploration of the lock's own source under a deterministic scheduler; no product depends on it.
let exploration: [Target] = [
  .plugin(
    name: "ExploredSources", capability: .buildTool(), dependencies: ["ExploredSourcesGenerator"]),
  .executableTarget(
    name: "ExploredSourcesGenerator", path: "Tests/Exploration/Generator", swiftSettings: ours),
  .target(name: "CExplorer", path: "Tests/Exploration/Engine"),
  .target(
    name: "ExploredRangeLocks", dependencies: ["CRangeland", "CExplorer"],
    path: "Tests/Exploration/Explored", swiftSettings: [.treatAllWarnings(as: .error)],
    plugins: ["ExploredSources"]),
  .target(
    name: "RangeLocksExploration", dependencies: ["CExplorer", "ExploredRangeLocks"],
    path: "Tests/Exploration/Programs", swiftSettings: ours),
  .executableTarget(
    name: "ExploreRangeLocks",
    dependencies: [
      "ExploredRangeLocks", "RangeLocksExploration",
      .product(name: "ArgumentParser", package: "swift-argument-parser"),
    ],
    path: "Tests/Exploration/Command", swiftSettings: ours),
  .testTarget(
    name: "RangeLocksExplorationTests",
    dependencies: ["ExploredRangeLocks", "RangeLocksExploration", "RangelandTestSupport"],
    swiftSettings: ours),
]

let package = Package(
  name: "rangeland",
  products: [
    .library(name: "RangeLocks", targets: ["RangeLocks"]),
    .library(name: "Rangeland", targets: ["Rangeland"]),
    .library(name: "RangelandReplay", targets: ["RangelandReplay"]),
    .executable(name: "rangeland", targets: ["RangelandCommand"]),
  ],
  traits: [
    .trait(
      name: "CheckedLocks",
      description: "Release builds report who would wait for itself, and locks taken in two orders."
    )
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-system", from: "1.6.0"),
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.5.0"),
    .package(url: "https://github.com/apple/swift-collections", from: "1.1.0"),
  ],
  targets: [
    .target(name: "CRangeland"),
    .target(name: "RangeLocks", dependencies: ["CRangeland"], swiftSettings: ours),
    .target(
      name: "Rangeland",
      dependencies: [
        "CRangeland", "RangeLocks", .product(name: "SystemPackage", package: "swift-system"),
      ],
      swiftSettings: ours),
    .target(
      name: "RangelandReplay",
      dependencies: [
        "CKernelProtocol", "CRangeland", "KernelHelper", "RangeLocks", "Rangeland",
        .product(name: "SystemPackage", package: "swift-system"),
        .product(name: "HeapModule", package: "swift-collections"),
      ],
      resources: [.copy("Resources")],
      swiftSettings: ours),
    // The kernel's side of the judge and of replays: the same calls in a helper process.
    .target(name: "CKernelProtocol"),
    .executableTarget(name: "KernelHelper", dependencies: ["CKernelProtocol"]),
    // The judge: the same calls on an address space and on the kernel.
    .target(
      name: "RangelandVerify",
      dependencies: [
        "CRangeland", "CKernelProtocol", "KernelHelper", "Rangeland",
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      swiftSettings: ours),
    .executableTarget(
      name: "RangelandCommand",
      dependencies: [
        "CRangeland", "RangeLocks", "Rangeland", "RangelandReplay", "RangelandVerify",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      swiftSettings: ours),
    .target(
      name: "RangelandTestSupport", dependencies: ["CRangeland"], path: "Tests/Support",
      swiftSettings: ours),
    // A process that writes to a file through a mapping and is killed: see KillTests.
    .executableTarget(
      name: "FileWriter",
      dependencies: [
        "Rangeland", "RangelandTestSupport",
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      path: "Tests/FileWriter", swiftSettings: ours),
    .executableTarget(
      name: "FirstSpace", dependencies: ["Rangeland"], path: "Examples/FirstSpace",
      swiftSettings: ours),
    .executableTarget(
      name: "SmallMachine",
      dependencies: ["Rangeland", .product(name: "SystemPackage", package: "swift-system")],
      path: "Examples/SmallMachine", swiftSettings: ours),
    .executableTarget(
      name: "FileRanges",
      dependencies: ["RangeLocks", .product(name: "SystemPackage", package: "swift-system")],
      path: "Examples/FileRanges", swiftSettings: ours),
    // A slow program to be recorded: docs/walk-through.md.
    .executableTarget(name: "ArenaPool", path: "Examples/ArenaPool"),
    .testTarget(
      name: "RangeLocksTests", dependencies: ["CRangeland", "RangeLocks", "RangelandTestSupport"],
      swiftSettings: ours),
    .testTarget(
      name: "RangelandTests",
      dependencies: [
        "CRangeland", "FileWriter", "RangeLocks", "Rangeland", "RangelandTestSupport",
      ],
      swiftSettings: ours),
    .testTarget(
      name: "RangelandReplayTests",
      dependencies: [
        "CRangeland", "RangeLocks", "Rangeland", "RangelandReplay", "RangelandCommand",
        "RangelandTestSupport",
      ],
      swiftSettings: ours),
    .testTarget(
      name: "RangelandVerifyTests",
      dependencies: ["Rangeland", "RangelandVerify", "RangelandTestSupport"],
      swiftSettings: ours),
  ] + exploration,
  swiftLanguageModes: [.v6]
)
