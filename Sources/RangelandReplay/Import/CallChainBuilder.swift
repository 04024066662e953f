// SPDX-License-Identifier: Apache-2.0
//
// Numbers the call chains of a text, each once.

/// Makes a table of chains that are met again and again.
struct CallChainBuilder {
  private(set) var chains = CallChains()
  private var frameNumbers: [CallChains.Frame: UInt32] = [:]
  private var chainNumbers: [[UInt32]: Int] = [:]

  /// The number of a frame, which may be new.
  mutating func frame(_ frame: CallChains.Frame) -> UInt32 {
    if let number = frameNumbers[frame] { return number }
    let number = UInt32(chains.frames.count)
    chains.append(frame)
    frameNumbers[frame] = number
    return number
  }

  /// The number of the chain of these frames, innermost first; nil if there are none.
  mutating func chain(_ frames: [UInt32]) -> Int? {
    if frames.isEmpty { return nil }
    if let number = chainNumbers[frames] { return number }
    let number = chains.count
    chains.append(chain: frames)
    chainNumbers[frames] = number
    return number
  }

  /// Those of `all` that `isUsed` names, and the new number of each, nil for those left out.
  static func keeping(
    _ isUsed: [Bool], of all: CallChains
  ) -> (chains: CallChains, numbers: [Int?]) {
    var builder = CallChainBuilder()
    let numbers = isUsed.indices.map { index -> Int? in
      guard isUsed[index] else { return nil }
      return builder.chain(all.chain(index).map { builder.frame($0) })
    }
    return (builder.chains, numbers)
  }
}
