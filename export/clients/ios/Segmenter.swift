// The shortest honest way to run a compressed segmenter on iOS, with LiteRT 2.
//
// Xcode, File > Add Package Dependencies: https://github.com/google-ai-edge/LiteRT, branch release/2.3.0, product LiteRT.
// (CocoaPods' trunk takes nothing new from 2 December 2026 on; pods that are there can still be installed.)
// fetch-model.swift brings model.tflite, labels.txt and manifest.json; add them to the app's bundle.

import CoreGraphics
import CryptoKit
import Foundation
import LiteRT

struct Manifest: Decodable {
    struct Tensor: Decodable {
        let shape: [Int]
    }
    struct File: Decodable {
        let format: String
        let file: String
        let sha256: String
        let input: Tensor
        let output: Tensor
    }
    let classes: [String]
    let files: [File]
}

enum SegmenterError: Error {
    case missing(String)
    case notTheFileOfTheManifest(String)
    case noImage
}

/// Pixels in, probabilities out. Nothing is normalised: the file takes RGB, 0 to 255. Use it from one thread at a time.
final class Segmenter {
    let classes: [String]
    let height: Int
    let width: Int
    private let channels: Int
    private let model: CompiledModel
    private let given: [TensorBuffer]
    private let made: [TensorBuffer]

    init(bundle: Bundle = .main, threads: Int = 2) throws {
        guard let manifestURL = bundle.url(forResource: "manifest", withExtension: "json"),
            let modelURL = bundle.url(forResource: "model", withExtension: "tflite")
        else { throw SegmenterError.missing("manifest.json or model.tflite") }
        let manifest = try JSONDecoder().decode(Manifest.self, from: Data(contentsOf: manifestURL))
        let digest = SHA256.hash(data: try Data(contentsOf: modelURL)).map { String(format: "%02x", $0) }.joined()
        guard let entry = manifest.files.first(where: { $0.format == "tflite" && $0.sha256 == digest }) else {
            throw SegmenterError.notTheFileOfTheManifest(modelURL.lastPathComponent)
        }
        classes = manifest.classes
        (height, width, channels) = (entry.input.shape[1], entry.input.shape[2], entry.output.shape[3])

        let cpu = try CpuOptions()
        try cpu.setNumThreads(threads)
        let options = try Options()
        try options.setHardwareAccelerators([.cpu])
        try options.addConcreteOptions(cpu)
        model = try CompiledModel(filePath: modelURL.path, environment: try Environment(), options: options)
        (given, made) = (try model.createInputBuffers(), try model.createOutputBuffers())
    }

    /// RGB bytes, height * width * 3 -> uint8 probabilities, height * width * channels; 255 is certain.
    func probabilities(rgb: [UInt8]) throws -> [UInt8] {
        try given[0].write(rgb)
        try model.run(inputs: given, outputs: made)
        return try made[0].read()
    }

    /// How probable one class is in each pixel of the photograph, grey and of its size: a mask with a soft edge.
    func mask(of photo: CGImage, channel: Int) throws -> CGImage {
        let scores = try probabilities(rgb: try pixels(of: photo))
        let alpha = (0..<(height * width)).map { scores[$0 * channels + channel] }
        guard
            let provider = CGDataProvider(data: Data(alpha) as CFData),
            let small = CGImage(
                width: width, height: height, bitsPerComponent: 8, bitsPerPixel: 8, bytesPerRow: width,
                space: CGColorSpaceCreateDeviceGray(), bitmapInfo: [], provider: provider, decode: nil,
                shouldInterpolate: true, intent: .defaultIntent),
            let context = CGContext(
                data: nil, width: photo.width, height: photo.height, bitsPerComponent: 8, bytesPerRow: 0,
                space: CGColorSpaceCreateDeviceGray(), bitmapInfo: CGImageAlphaInfo.none.rawValue)
        else { throw SegmenterError.noImage }
        context.interpolationQuality = .high
        context.draw(small, in: CGRect(x: 0, y: 0, width: photo.width, height: photo.height))
        guard let large = context.makeImage() else { throw SegmenterError.noImage }
        return large
    }

    /// The whole photograph at the size that the file reads, as RGB. It must be upright: a CGImage knows nothing of EXIF.
    private func pixels(of photo: CGImage) throws -> [UInt8] {
        var rgba = [UInt8](repeating: 0, count: height * width * 4)
        let drawn = rgba.withUnsafeMutableBytes { bytes -> Bool in
            guard
                let context = CGContext(
                    data: bytes.baseAddress, width: width, height: height, bitsPerComponent: 8, bytesPerRow: width * 4,
                    space: CGColorSpaceCreateDeviceRGB(), bitmapInfo: CGImageAlphaInfo.noneSkipLast.rawValue)
            else { return false }
            context.interpolationQuality = .high
            context.draw(photo, in: CGRect(x: 0, y: 0, width: width, height: height))
            return true
        }
        guard drawn else { throw SegmenterError.noImage }
        return (0..<(height * width * 3)).map { rgba[$0 / 3 * 4 + $0 % 3] }
    }
}
