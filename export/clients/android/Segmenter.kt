// The shortest honest way to run a compressed segmenter on Android, twice: with LiteRT, and with MediaPipe.
//
// Gradle: implementation("com.google.ai.edge.litert:litert:1.4.0")
//         implementation("com.google.mediapipe:tasks-vision:0.10.29")
// Put model.tflite, manifest.json and golden.npz of a run into src/main/assets (golden.npz for the test alone).

package example.segmenter

import android.content.Context
import android.graphics.Bitmap
import com.google.mediapipe.framework.image.BitmapImageBuilder
import com.google.mediapipe.tasks.core.BaseOptions
import com.google.mediapipe.tasks.vision.core.RunningMode
import com.google.mediapipe.tasks.vision.imagesegmenter.ImageSegmenter
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.security.MessageDigest
import org.json.JSONObject
import org.tensorflow.lite.Interpreter

/** The model's bytes. Throws where they are not the file that the manifest describes. */
fun checkedModel(context: Context): ByteBuffer {
    val manifest = JSONObject(context.assets.open("manifest.json").bufferedReader().readText())
    val files = manifest.getJSONArray("files")
    val entry = (0 until files.length()).map(files::getJSONObject).first { it.getString("format") == "tflite" }
    val bytes = context.assets.open("model.tflite").readBytes()
    val digest = MessageDigest.getInstance("SHA-256").digest(bytes).joinToString("") { "%02x".format(it) }
    check(digest == entry.getString("sha256")) { "model.tflite is not the file that the manifest describes" }
    return ByteBuffer.allocateDirect(bytes.size).order(ByteOrder.nativeOrder()).apply { put(bytes); rewind() }
}

/** LiteRT alone: pixels in, probabilities out. Nothing is normalised: the file takes RGB, 0 to 255. */
class LiteRtSegmenter(model: ByteBuffer, threads: Int = 2) : AutoCloseable {
    private val interpreter = Interpreter(model, Interpreter.Options().setNumThreads(threads))
    private val shape = interpreter.getInputTensor(0).shape() // 1, height, width, 3
    val height = shape[1]
    val width = shape[2]
    val classes = interpreter.getOutputTensor(0).shape()[3]

    /** RGB bytes, height * width * 3 -> the likeliest class of each pixel. */
    fun segment(rgb: ByteBuffer): ByteArray {
        val scores = probabilities(rgb)
        return ByteArray(height * width) { pixel ->
            (0 until classes).maxBy { scores.get(pixel * classes + it).toInt() and 0xff }.toByte()
        }
    }

    /** uint8 probabilities, height * width * classes; 255 is certain. */
    fun probabilities(rgb: ByteBuffer): ByteBuffer {
        val output = ByteBuffer.allocateDirect(height * width * classes)
        interpreter.run(rgb.apply { rewind() }, output)
        return output.apply { rewind() }
    }

    fun segment(photo: Bitmap): ByteArray {
        val small = Bitmap.createScaledBitmap(photo, width, height, true)
        val pixels = IntArray(width * height).also { small.getPixels(it, 0, width, 0, 0, width, height) }
        val rgb = ByteBuffer.allocateDirect(pixels.size * 3)
        for (pixel in pixels) rgb.put((pixel shr 16).toByte()).put((pixel shr 8).toByte()).put(pixel.toByte())
        return segment(rgb)
    }

    override fun close() = interpreter.close()
}

/** MediaPipe: it resizes the photograph itself and reads the labels from the file. */
fun mediaPipeSegmenter(context: Context, model: ByteBuffer): ImageSegmenter =
    ImageSegmenter.createFromOptions(
        context,
        ImageSegmenter.ImageSegmenterOptions.builder()
            .setBaseOptions(BaseOptions.builder().setModelAssetBuffer(model).build())
            .setRunningMode(RunningMode.IMAGE)
            .setOutputCategoryMask(true)
            .build(),
    )

fun ImageSegmenter.mask(photo: Bitmap) = segment(BitmapImageBuilder(photo).build()).categoryMask().get()
